//! placeholder
/// placeholder
#[derive(Clone, Copy, Debug)]
pub enum Faults { /// None
None, /// All
All, /// Without
WithoutTooLarge }
/// placeholder
pub struct Fleet;
/// placeholder
pub struct Record<'a> { /// k
pub key: Option<&'a [u8]>, /// v
pub value: Option<&'a [u8]> }
impl Fleet {
/// n
pub fn new(_: u64, _: u32, _: Faults) -> Fleet { Fleet }
/// n
#[allow(clippy::should_implement_trait)]
pub fn next(&mut self) -> Record<'_> { Record { key: None, value: None } }
}
