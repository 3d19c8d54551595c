//! stub
use super::Failure;
#[derive(Debug, clap::Args)]
/// Demo
pub struct Options {}
pub(super) fn run(_options: &Options) -> Result<(), Failure> { Ok(()) }
