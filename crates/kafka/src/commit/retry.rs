//! What an answer of librdkafka means for a step of a commit: whether it's tried again, what the attempt is
//! answered, what people read.

use genwatch_core::engine::commit::CallResult;
use genwatch_core::engine::membership::Refusal;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::CommitError;
use crate::consumer::TransactionError;

/// Why a call failed: the answer for the attempt, and the reason for people.
pub(super) struct Failure {
    pub(super) answer: CallResult,
    pub(super) reason: String,
    pub(super) rejection: Option<CommitError>,
}

impl Failure {
    pub(super) fn new(answer: CallResult, reason: impl ToString) -> Failure {
        Failure { answer, reason: reason.to_string(), rejection: None }
    }

    pub(super) fn rejected(rejection: CommitError) -> Failure {
        Failure { answer: CallResult::Rejected, reason: rejection.to_string(), rejection: Some(rejection) }
    }
}

pub(super) fn transaction_failure(error: &KafkaError) -> Failure {
    let retry = Retry::of(error);
    Failure::new(
        if retry.fatal { CallResult::Broken } else { CallResult::Refused(Refusal::Other) },
        retry.reason,
    )
}

pub(super) fn overdue(reason: impl std::fmt::Display) -> Failure {
    Failure::new(CallResult::Overdue, format!("the transaction has timed out: {reason}"))
}

/// What the group coordinator's answer means for the held partitions.
pub(super) fn refusal_of(code: RDKafkaErrorCode) -> Refusal {
    match code {
        RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::FencedInstanceId => Refusal::NotAMember,
        RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::StaleMemberEpoch => Refusal::StaleGeneration,
        _ => Refusal::Other,
    }
}

pub(super) fn rejection(topic: &str, code: RDKafkaErrorCode) -> CommitError {
    let advice = match code {
        RDKafkaErrorCode::MessageSizeTooLarge => {
            "raise its max.message.bytes above that of the readings topic"
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => "grant this principal WRITE on it",
        RDKafkaErrorCode::InvalidTimestamp => {
            "set its message.timestamp.before/after.max.ms as wide as the readings topic's"
        }
        _ => "see the brokers' logs",
    };
    CommitError::Rejected { topic: topic.to_owned(), reason: code.to_string(), advice }
}

/// A failed step, and whether to retry it.
pub(crate) struct Retry {
    pub(crate) retriable: bool,
    pub(crate) fatal: bool,
    pub(crate) refusal: Refusal,
    pub(crate) reason: String,
}

impl Retry {
    pub(crate) fn of(error: &KafkaError) -> Retry {
        match error {
            KafkaError::Transaction(inner) => Retry {
                retriable: inner.is_retriable() && !inner.txn_requires_abort(),
                fatal: inner.is_fatal(),
                refusal: refusal_of(inner.code()),
                reason: inner.string(),
            },
            other => Retry {
                retriable: false,
                fatal: other.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal),
                refusal: Refusal::Other,
                reason: reason(other),
            },
        }
    }

    /// Not everything was delivered within one step.
    pub(crate) fn of_delivery() -> Retry {
        let reason = "the brokers do not acknowledge the records".to_owned();
        Retry { retriable: true, fatal: false, refusal: Refusal::Other, reason }
    }
}

impl From<TransactionError> for Retry {
    fn from(failed: TransactionError) -> Retry {
        Retry {
            retriable: failed.retriable,
            fatal: failed.fatal,
            refusal: refusal_of(failed.error.code),
            reason: failed.error.to_string(),
        }
    }
}

pub(super) fn reason(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(inner) => inner.string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use RDKafkaErrorCode as Code;

    use super::*;
    use crate::error::ClientError;

    fn transaction(code: Code, retriable: bool, fatal: bool) -> Retry {
        TransactionError { error: ClientError::new(code, "said"), retriable, fatal }.into()
    }

    #[test]
    fn a_coordinator_s_answer_says_whether_the_membership_or_only_its_generation_is_over() {
        for (code, refusal) in [
            (Code::UnknownMemberId, Refusal::NotAMember),
            (Code::FencedInstanceId, Refusal::NotAMember),
            (Code::IllegalGeneration, Refusal::StaleGeneration),
            (Code::StaleMemberEpoch, Refusal::StaleGeneration),
            (Code::RebalanceInProgress, Refusal::Other),
            (Code::NotCoordinator, Refusal::Other),
        ] {
            assert_eq!(transaction(code, false, false).refusal, refusal, "{code}");
        }
    }

    #[test]
    fn only_what_librdkafka_calls_retriable_is_tried_again() {
        let passing = transaction(Code::OperationTimedOut, true, false);
        assert!(passing.retriable && !passing.fatal);
        let fenced = transaction(Code::Fenced, false, true);
        assert!(!fenced.retriable && fenced.fatal);
        let fatal = KafkaError::MessageProduction(Code::Fatal);
        assert!(Retry::of(&fatal).fatal && !Retry::of(&fatal).retriable);
        let other = KafkaError::MessageProduction(Code::InvalidArgument);
        assert!(!Retry::of(&other).fatal && !Retry::of(&other).retriable);
        assert!(Retry::of_delivery().retriable);
    }

    #[test]
    fn a_producer_that_is_broken_is_replaced_and_one_that_is_refused_goes_on() {
        let broken = transaction_failure(&KafkaError::MessageProduction(Code::Fatal));
        assert_eq!(broken.answer, CallResult::Broken);
        let refused = transaction_failure(&KafkaError::MessageProduction(Code::InvalidArgument));
        assert_eq!(refused.answer, CallResult::Refused(Refusal::Other));
        assert_eq!(overdue("no answer").answer, CallResult::Overdue);
    }

    #[test]
    fn a_topic_s_refusal_names_the_topic_and_what_to_do() {
        for (code, advice) in [
            (Code::MessageSizeTooLarge, "max.message.bytes"),
            (Code::TopicAuthorizationFailed, "grant this principal WRITE"),
            (Code::InvalidTimestamp, "message.timestamp.before/after.max.ms"),
            (Code::PolicyViolation, "brokers' logs"),
        ] {
            let failure = Failure::rejected(rejection("g_state", code));
            assert_eq!(failure.answer, CallResult::Rejected);
            assert!(
                failure.reason.contains("g_state") && failure.reason.contains(advice),
                "{}",
                failure.reason
            );
        }
    }
}
