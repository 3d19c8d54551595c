//! Transformations: the steps of a `--transform` file, applied to one record at a time.
//!
//! [`Transform::load`] reads and checks the file. [`Transform::apply`] takes a record with its metadata and returns an
//! [`Outcome`]: unchanged, changed, or filtered; or a [`Failure`], which names the step. The same code serves every
//! command that moves records; a [`Command`] says what its records have.
//!
//! `docs/transformations.md` describes the steps for users.
//!
//! # Layout
//!
//! * `file` reads TOML tables key by key and knows the line of each mistake.
//! * `steps` has one file for each kind of step, `predicate` has `when`.
//! * [`fields`] has the members of a JSON object, [`record`] a record with its metadata, `text` the patterns.
//!
//! # Invariants
//!
//! 1. A record that no step changes passes byte for byte: [`Outcome::Unchanged`].
//! 2. A value that no step changes keeps its text, whatever happens to other members; members keep their order.
//! 3. A step applies to every member of its name, so that no duplicate escapes a mask.
//! 4. No input panics, overflows the stack or takes more than linear time in the file's steps; a record over
//!    [`MAX_VALUE_BYTES`] fails.
//! 5. What fails is never half transformed: a failure has no fields.
//!
//! # Must not know
//!
//! Kafka, MQTT, databases, a clock.

pub mod fields;
mod file;
mod number;
mod predicate;
pub mod record;
mod steps;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::reading::MAX_VALUE_BYTES;
use crate::types::Millis;
use fields::Fields;
use file::{Mistake, Table};
use predicate::Predicate;
use record::{Command, Record};
use steps::Action;

/// The steps of a file, checked. Owned by the command that runs them; shared freely between threads.
#[derive(Debug)]
pub struct Transform {
    steps: Vec<Step>,
    command: Command,
}

/// One step: what it does, and when.
#[derive(Debug)]
struct Step {
    place: StepPlace,
    when: Option<Predicate>,
    action: Action,
}

/// Where a step is: for messages and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlace {
    number: usize,
    kind: &'static str,
    line: usize,
    file: Arc<str>,
}

impl StepPlace {
    /// The step's number and kind, such as `2-cast`: a metric label.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}-{}", self.number, self.kind)
    }

    /// A failure of this step, found by the caller: a topic that doesn't exist, a timestamp that can't be.
    #[must_use]
    pub fn failure(&self, cause: impl Into<String>) -> Failure {
        Failure { step: self.clone(), cause: cause.into() }
    }
}

/// `step 2 (cast, units.toml:8)`
impl fmt::Display for StepPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} ({}, {}:{})", self.number, self.kind, self.file, self.line)
    }
}

/// What becomes of a record.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// No step changed it: it passes byte for byte.
    Unchanged,
    /// Steps changed it.
    Changed(Box<Changed<'a>>),
    /// This step filtered it out, which is no failure.
    Filtered(&'a StepPlace),
}

/// A record that steps changed.
#[derive(Debug, Default)]
pub struct Changed<'a> {
    /// Where it goes instead: a topic, or a measurement.
    pub target: Option<Set<'a, Cow<'a, str>>>,
    /// Its timestamp instead of its own.
    pub timestamp: Option<Set<'a, Millis>>,
    /// Its members; `None` if the value passes byte for byte.
    pub fields: Option<Fields<'a>>,
    /// The names of the members that are tags in a database.
    pub tags: Vec<&'a str>,
}

/// A value, and the step that set it: its caller may have to refuse it.
#[derive(Debug)]
pub struct Set<'a, T> {
    /// The value.
    pub value: T,
    /// The step.
    pub step: &'a StepPlace,
}

/// Why a record can't be transformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct Failure {
    /// The step.
    pub step: StepPlace,
    /// The cause. Quotes at most a short excerpt of the record, with control characters escaped.
    pub cause: String,
}

/// The value of `dlq.error.code` of a record that a step failed on.
pub const ERROR_CODE: &str = "transform";

impl Failure {
    /// The headers that the record's dead letter gets behind its own: the topic that it was for, where it came from, what
    /// is wrong, who says so.
    #[must_use]
    pub fn dead_letter_headers(
        &self,
        topic: &str,
        origin: &[(&str, &str)],
        worker: &str,
    ) -> Vec<(String, Option<Vec<u8>>)> {
        let message = self.to_string();
        let why = [("dlq.error.code", ERROR_CODE), ("dlq.error.message", &message), ("dlq.worker", worker)];
        let all = [("dlq.topic", topic)].into_iter().chain(origin.iter().copied()).chain(why);
        all.map(|(name, text)| (name.to_owned(), Some(text.as_bytes().to_vec()))).collect()
    }
}

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// The file can't be read.
    #[error("cannot read the transformations {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// It makes no sense.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The mistake and the remedy.
        message: String,
    },
}

impl Transform {
    /// Reads and checks a file for this command.
    ///
    /// # Errors
    /// When the file can't be read, isn't TOML, or a step makes no sense for the command; the message names file and
    /// line.
    pub fn load(path: &Path, command: Command) -> Result<Transform, TransformError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| TransformError::Unreadable { path: path.to_owned(), error })?;
        Transform::parse(&text, path, command)
    }

    /// Checks the text of a file; `path` only appears in messages.
    ///
    /// # Errors
    /// As [`Transform::load`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::path::Path;
    /// use genwatch_core::transform::record::{Command, Record};
    /// use genwatch_core::transform::{Outcome, Transform};
    ///
    /// let text = r#"
    /// [[step]]
    /// kind = "convert"
    /// fields = ["temperature"]
    /// from = "celsius"
    /// to = "fahrenheit"
    /// "#;
    /// let transform = Transform::parse(text, Path::new("units.toml"), Command::SOURCE).unwrap();
    /// let record = Record::new("readings", br#"{"generatorID":"g4","temperature":74}"#);
    /// let Ok(Outcome::Changed(changed)) = transform.apply(&record) else { panic!("it changes") };
    /// let value = changed.fields.unwrap().to_json();
    /// assert_eq!(value, br#"{"generatorID":"g4","temperature":165.2}"#);
    /// ```
    pub fn parse(text: &str, path: &Path, command: Command) -> Result<Transform, TransformError> {
        let invalid = |mistake: Mistake| TransformError::Invalid {
            path: path.to_owned(),
            line: mistake.line(text),
            message: mistake.message,
        };
        let file: Arc<str> = path.display().to_string().into();
        let mut document = Table::document(text).map_err(invalid)?;
        let tables = document.tables("step").map_err(invalid)?;
        document.finish().map_err(invalid)?;
        if tables.is_empty() {
            return Err(invalid(Mistake::at(
                0..0,
                "there is no [[step]] in it, so nothing would be transformed",
            )));
        }
        let mut steps = Vec::with_capacity(tables.len());
        for (index, mut table) in tables.into_iter().enumerate() {
            let line = Mistake::at(table.span(), "").line(text);
            let (kind, action) = Action::read(&mut table, &command).map_err(invalid)?;
            let when = table.table("when").map_err(invalid)?;
            let when = when.map(Predicate::read).transpose().map_err(invalid)?;
            if matches!(action, Action::Filter) && when.is_none() {
                let message = "a filter without `when` would drop every record: say which, such as \
                               when = { field = \"fuel\", below = 0 }";
                return Err(invalid(Mistake::at(table.span(), message)));
            }
            table.finish().map_err(invalid)?;
            let place = StepPlace { number: index + 1, kind, line, file: Arc::clone(&file) };
            steps.push(Step { place, when, action });
        }
        Ok(Transform { steps, command })
    }

    /// The targets that the steps name literally, without a group of a pattern, with the step of each.
    pub fn fixed_targets(&self) -> impl Iterator<Item = (&str, &StepPlace)> {
        self.steps.iter().filter_map(|step| Some((step.action.fixed_target()?, &step.place)))
    }

    /// The steps, in the order of the file.
    pub fn steps(&self) -> impl Iterator<Item = &StepPlace> {
        self.steps.iter().map(|step| &step.place)
    }

    /// Whether some step may change where records go.
    #[must_use]
    pub fn routes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Route(_)))
    }

    /// Applies the steps to a record, in the order of the file.
    ///
    /// # Errors
    /// With the step that failed. Nothing of the record is transformed then.
    pub fn apply<'a>(&'a self, record: &Record<'a>) -> Result<Outcome<'a>, Failure> {
        let mut state =
            State { record: *record, fields: None, fields_changed: false, changed: Changed::default() };
        for step in &self.steps {
            let failed = |cause: Cause| step.place.failure(cause);
            if let Some(when) = &step.when
                && !when.holds(&mut state).map_err(failed)?
            {
                continue;
            }
            match &step.action {
                Action::Filter => return Ok(Outcome::Filtered(&step.place)),
                action => action.apply(&mut state, &step.place, &self.command).map_err(failed)?,
            }
        }
        Ok(state.outcome())
    }
}

/// Why a step fails, for people.
type Cause = String;

/// A record on its way through the steps.
struct State<'a> {
    /// As it came.
    record: Record<'a>,
    /// Parsed when the first step asks for them.
    fields: Option<Fields<'a>>,
    fields_changed: bool,
    changed: Changed<'a>,
}

impl<'a> State<'a> {
    /// The members of the value.
    fn fields(&mut self) -> Result<&mut Fields<'a>, Cause> {
        match &mut self.fields {
            Some(fields) => Ok(fields),
            empty => Ok(empty.insert(Fields::parse(self.record.value)?)),
        }
    }

    /// The topic as earlier steps left it.
    fn topic(&self) -> &str {
        self.changed.target.as_ref().map_or(self.record.topic, |set| &set.value)
    }

    /// The timestamp as earlier steps left it.
    fn timestamp(&self) -> Option<Millis> {
        self.changed.timestamp.as_ref().map(|set| set.value).or(self.record.timestamp)
    }

    fn outcome(mut self) -> Outcome<'a> {
        if self.fields_changed || !self.changed.tags.is_empty() {
            self.changed.fields = self.fields;
        }
        let Changed { target, timestamp, fields, tags } = &self.changed;
        if target.is_none() && timestamp.is_none() && fields.is_none() && tags.is_empty() {
            return Outcome::Unchanged;
        }
        Outcome::Changed(Box::new(self.changed))
    }
}

/// Fails for a value that is too long to be worked on.
fn check_length(value: &[u8]) -> Result<(), Cause> {
    if value.len() <= MAX_VALUE_BYTES {
        return Ok(());
    }
    Err(format!("the value has {} bytes; the most is {MAX_VALUE_BYTES}", value.len()))
}
