//! librdkafka's errors, without its types.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// An error of a client, as text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct ClientError {
    pub(crate) code: RDKafkaErrorCode,
    said: String,
}

/// How to react to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The principal may not use the group.
    GroupUnauthorized,
    /// The principal may not use the topic.
    TopicUnauthorized,
    /// The client is unusable; [`Consumer::fatal_error`](crate::consumer::Consumer::fatal_error) says why.
    Fatal,
    /// The log doesn't have the offset.
    OutOfRange,
    /// A batch can't be decoded.
    Unreadable,
    /// The client keeps trying.
    Other,
}

/// An error with all its causes, on one line: what a log line shows.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl ClientError {
    pub(crate) fn new(code: impl Into<RDKafkaErrorCode>, reason: impl std::fmt::Display) -> ClientError {
        let code = code.into();
        ClientError { code, said: format!("{reason} ({code})") }
    }

    /// Creates an error that the system or this crate has found.
    pub(crate) fn of_ours(reason: String) -> ClientError {
        ClientError { code: RDKafkaErrorCode::Fail, said: reason }
    }

    /// Returns how to react to it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.code {
            RDKafkaErrorCode::GroupAuthorizationFailed => ErrorKind::GroupUnauthorized,
            RDKafkaErrorCode::TopicAuthorizationFailed => ErrorKind::TopicUnauthorized,
            RDKafkaErrorCode::Fatal => ErrorKind::Fatal,
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => ErrorKind::OutOfRange,
            RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::NotImplemented => ErrorKind::Unreadable,
            _ => ErrorKind::Other,
        }
    }

    /// Returns librdkafka's error number, to distinguish errors.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.code as i32
    }
}

impl From<KafkaError> for ClientError {
    fn from(error: KafkaError) -> Self {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        ClientError { code, said: error.to_string() }
    }
}
