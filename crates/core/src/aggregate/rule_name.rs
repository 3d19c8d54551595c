//! The name of a rule, shared by all that count by it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A rule's name. Cheap to clone, because every aggregate names the rules.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleName(Arc<str>);

impl From<&str> for RuleName {
    fn from(name: &str) -> RuleName {
        RuleName(name.into())
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for RuleName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RuleName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RuleName, D::Error> {
        Ok(RuleName(String::deserialize(deserializer)?.into()))
    }
}
