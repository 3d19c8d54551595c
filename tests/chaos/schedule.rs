//! Which faults, in which order, for how long: from the seed alone.

use std::time::Duration;

use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg32;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    WorkerKilled,
    AllWorkersKilled,
    WorkerStoppedBeyondSession,
    WorkerStoppedBriefly,
    WorkerRestarted,
    ScaledUp,
    ScaledDown,
    KilledWhileRebalancing,
    LinkCut,
    LinkRefuses,
    LinkSlow,
    OneBrokerCutOff,
    OneBrokerLate,
    BrokerKilled,
    BrokerStopped,
    DiskFull,
    GroupCoordinatorKilled,
    TransactionCoordinatorKilled,
    WorkerReplacedWhileBrokerDown,
    StoppedWhileRevoking,
    TopicGrown,
    TopicMadeAnew,
}

impl Kind {
    pub const ALL: [Kind; 22] = [
        Kind::WorkerKilled,
        Kind::AllWorkersKilled,
        Kind::WorkerStoppedBeyondSession,
        Kind::WorkerStoppedBriefly,
        Kind::WorkerRestarted,
        Kind::ScaledUp,
        Kind::ScaledDown,
        Kind::KilledWhileRebalancing,
        Kind::LinkCut,
        Kind::LinkRefuses,
        Kind::LinkSlow,
        Kind::OneBrokerCutOff,
        Kind::OneBrokerLate,
        Kind::BrokerKilled,
        Kind::BrokerStopped,
        Kind::DiskFull,
        Kind::GroupCoordinatorKilled,
        Kind::TransactionCoordinatorKilled,
        Kind::WorkerReplacedWhileBrokerDown,
        Kind::StoppedWhileRevoking,
        Kind::TopicGrown,
        Kind::TopicMadeAnew,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::WorkerKilled => "a worker killed, a new one started",
            Kind::AllWorkersKilled => "all workers killed, new ones started",
            Kind::WorkerStoppedBeyondSession => {
                "a worker stopped (SIGSTOP) beyond its session, then continued"
            }
            Kind::WorkerStoppedBriefly => {
                "a worker stopped (SIGSTOP) for less than its session, then continued"
            }
            Kind::WorkerRestarted => "a worker told to end (SIGTERM), a new one started",
            Kind::ScaledUp => "scaled up",
            Kind::ScaledDown => "scaled down (SIGTERM)",
            Kind::KilledWhileRebalancing => "scaled up, another worker killed while partitions move",
            Kind::LinkCut => "the remote site cut off in silence, beyond the session",
            Kind::LinkRefuses => "connections of the remote site reset and refused",
            Kind::LinkSlow => "the remote site's connections carry 24 kB/s each",
            Kind::OneBrokerCutOff => {
                "the remote site cut off in silence from one broker, not from the others"
            }
            Kind::OneBrokerLate => "a broker's answers come 0.7 s late at the remote site",
            Kind::DiskFull => "a broker's disk full: it ends, and is started again when there is room",
            Kind::BrokerKilled => "a broker killed and restarted",
            Kind::BrokerStopped => "a broker stopped (SIGSTOP), then continued",
            Kind::GroupCoordinatorKilled => "the group's coordinator killed and restarted",
            Kind::TransactionCoordinatorKilled => "the transactions' coordinator killed and restarted",
            Kind::WorkerReplacedWhileBrokerDown => "a broker down, a worker killed and replaced meanwhile",
            Kind::StoppedWhileRevoking => {
                "scaled up, another worker stopped (SIGSTOP) while it gives partitions back, beyond its session, then continued"
            }
            Kind::TopicGrown => "the readings topic given more partitions",
            Kind::TopicMadeAnew => "the readings topic deleted and recreated, under running workers",
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// Chooses the target.
    pub choice: usize,
    /// How long it lasts, from 0 (short) to 1 (long).
    pub severity: f64,
    /// The wait till the next one; `None`: until everything has recovered.
    pub then: Option<Duration>,
}

impl Fault {
    /// A time between these, by the severity.
    pub fn between(&self, shortest: f64, longest: f64) -> Duration {
        Duration::from_secs_f64(shortest + self.severity * (longest - shortest))
    }
}

/// A schedule of `count` faults: every kind once before any comes twice.
pub fn schedule(seed: u64, count: usize) -> Vec<Fault> {
    let mut random = Pcg32::seed_from_u64(seed);
    let mut faults = Vec::new();
    while faults.len() < count {
        let mut kinds = Kind::ALL;
        kinds.shuffle(&mut random);
        for kind in kinds.into_iter().take(count - faults.len()) {
            let then = random.random_ratio(1, 3).then(|| Duration::from_millis(random.random_range(0..3000)));
            let (choice, severity) = (random.random_range(0..1000), random.random_range(0.0..1.0));
            faults.push(Fault { kind, choice, severity, then });
        }
    }
    faults
}
