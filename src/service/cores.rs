//! How many cores this process could have used: what it used, and what was idle.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::LazyLock;

use rustix::thread::{CpuSet, sched_getaffinity};

/// What the CPUs that this process may run on have done since the system started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTimes(BTreeMap<usize, Ticks>);

/// The time of one CPU, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl CpuTimes {
    /// Reads the system's counters; empty where they can't be read.
    pub(super) fn read() -> CpuTimes {
        let (Ok(stat), Ok(cpus)) = (std::fs::read_to_string("/proc/stat"), sched_getaffinity(None)) else {
            return CpuTimes::default();
        };
        CpuTimes::parse(&stat, |cpu| cpu < CpuSet::MAX_CPU && cpus.is_set(cpu))
    }

    /// Parses `/proc/stat` (proc_stat(5)): lines such as `cpu7 user nice system idle iowait irq softirq steal ...`.
    fn parse(stat: &str, may_run_on: impl Fn(usize) -> bool) -> CpuTimes {
        let of_line = |line: &str| {
            // The line of all CPUs has no number.
            let rest =
                line.strip_prefix("cpu").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))?;
            let mut words = rest.split_ascii_whitespace();
            let cpu = words.next()?.parse().ok().filter(|cpu| may_run_on(*cpu))?;
            // What follows is part of the first two.
            let times: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
            let idle = times.get(3)? + times.get(4).unwrap_or(&0);
            Some((cpu, Ticks { idle, all: times.iter().sum() }))
        };
        CpuTimes(stat.lines().take_while(|line| line.starts_with("cpu")).filter_map(of_line).collect())
    }

    /// Returns how many of these CPUs were idle since then, on average; `None` if that is unknown.
    fn idle_since(&self, before: &CpuTimes) -> Option<f64> {
        let share = |(cpu, now): (&usize, &Ticks)| {
            let before = before.0.get(cpu)?;
            let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
            // The kernel may take some of it back.
            let idle = now.idle.saturating_sub(before.idle).min(all);
            Some(idle as f64 / all as f64)
        };
        self.0.iter().filter_map(share).reduce(|sum, share| sum + share)
    }
}

/// The part of the CPUs that a process gets in any case, if it wants them: the scheduler is fair to it.
const FAIR: f64 = 0.4;

/// Returns how many cores a process could have used that used this many: never more than the system lets it have,
/// quotas of its control group included. On a machine that others keep busy it is a fair part.
pub(super) fn usable(used: f64, before: &CpuTimes, now: &CpuTimes) -> f64 {
    let most = std::thread::available_parallelism().map_or(1, NonZero::get) as f64;
    now.idle_since(before).map_or(most, |idle| (used + idle).max(FAIR * most).min(most))
}

/// Which machine this is: the first digits of its boot id, which all containers of a machine share; empty where it can't
/// be read.
pub(super) fn machine() -> &'static str {
    static MACHINE: LazyLock<String> = LazyLock::new(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.chars().take_while(char::is_ascii_hexdigit).take(8).collect()
    });
    &MACHINE
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "cpu  300 0 300 2400 0 0 0 0 0 0
cpu0 100 0 100 800 0 0 0 0 0 0
cpu1 100 0 100 700 100 0 0 0 0 0
cpu2 100 0 100 900 0 0 0 0 0 0
intr 12345 0 9
cpus 7
";
    /// 100 ticks later: half idle, a tenth idle and a tenth waiting for a disk, all idle.
    const AFTER: &str = "cpu  425 5 325 2630 10 0 0 5 0 0
cpu0 140 0 110 850 0 0 0 0 0 0
cpu1 160 5 110 710 110 0 0 5 60 0
cpu2 100 0 100 1000 0 0 0 0 0 0
intr 12345 0 9
";

    #[test]
    fn idle_cores_are_those_of_the_cpus_that_it_may_run_on() {
        let idle = |may: fn(usize) -> bool| {
            CpuTimes::parse(AFTER, may).idle_since(&CpuTimes::parse(BEFORE, may)).unwrap_or(f64::NAN)
        };
        assert!((idle(|_| true) - 1.7).abs() < 1e-9);
        assert!((idle(|cpu| cpu < 2) - 0.7).abs() < 1e-9);
        let both = [CpuTimes::parse(BEFORE, |_| true), CpuTimes::parse(AFTER, |_| true)];
        assert_eq!(both[0].0.len(), 3);
        let usable = usable(1000.0, &both[0], &both[1]);
        assert_eq!(usable, std::thread::available_parallelism().map_or(1, NonZero::get) as f64);
    }

    #[test]
    fn what_is_not_told_is_unknown() {
        let known = CpuTimes::parse(BEFORE, |_| true);
        for (before, now) in [
            (CpuTimes::default(), known.clone()),
            (known.clone(), CpuTimes::default()),
            (known.clone(), known.clone()),
            (known.clone(), CpuTimes::parse("cpu0 x\ncpu1\ncpu2 1 2\n", |_| true)),
        ] {
            assert_eq!(now.idle_since(&before), None, "{before:?} {now:?}");
        }
        // This system tells, and a thread may run somewhere.
        #[cfg(target_os = "linux")]
        assert!(!CpuTimes::read().0.is_empty());
    }
}
