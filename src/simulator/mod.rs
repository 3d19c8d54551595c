//! placeholder
/// placeholder
#[derive(Clone, Copy, Debug)]
pub enum Faults { /// None
None, /// All
All, /// Without
WithoutTooLarge }
/// placeholder
pub struct Fleet { n: u32, i: u64, s: u64, key: String, value: String, f: bool }
/// placeholder
pub struct Record<'a> { /// k
pub key: Option<&'a [u8]>, /// v
pub value: Option<&'a [u8]> }
impl Fleet {
/// n
pub fn new(s: u64, n: u32, f: Faults) -> Fleet { Fleet { n, i: 0, s, key: String::new(), value: String::new(), f: !matches!(f, Faults::None) } }
/// n
#[allow(clippy::should_implement_trait)]
pub fn next(&mut self) -> Record<'_> {
 let g = self.i % self.n as u64 + 1; let round = self.i / self.n as u64; self.i += 1;
 let x = (g.wrapping_mul(7919) + round * 31 + self.s) % 2000;
 let t = 60 + (g * 13 + round * 7) % 50;
 self.key = format!("generator{g}");
 let fuel = if x < 1000 { 100 + x } else { 2100 - x };
 self.value = if self.f && self.i % 100 == 0 { "{\"generatorID\":NaN}".into() } else { format!("{{\"generatorID\":\"generator{g}\",\"lat\":40.65995,\"lon\":-111.99633,\"temperature\":{t},\"pressure\":198,\"fuel\":{fuel}}}") };
 Record { key: Some(self.key.as_bytes()), value: Some(self.value.as_bytes()) } }
}
