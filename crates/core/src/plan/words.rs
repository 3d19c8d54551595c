//! What people read: why a limit binds, and what to do.

use super::limits::{Bound, Limit};
use super::measurements::Measurements;
use super::model::Model;
use super::{Binding, Plan};
use crate::numbers::{count, grouped};

/// A bound in words.
pub(super) fn binding(model: &Model, measurements: &Measurements, bound: Bound) -> Binding {
    let Bound { limit, capacity } = bound;
    Binding { limit, capacity, why: why(model, measurements, bound) }
}

/// Why nothing binds.
pub(super) fn nothing_binds(demand: f64, workers: usize, capacity: f64) -> String {
    format!(
        "{} readings/s are wanted, and {} can process {}",
        rate(demand),
        count(workers, "worker"),
        rate(capacity)
    )
}

fn why(model: &Model, measurements: &Measurements, Bound { limit, capacity }: Bound) -> String {
    let partitions = model.deals.partitions();
    let workers = model.workers;
    match limit {
        Limit::Handler if model.work > 0.0 => format!(
            "a reading's work takes {}, and each worker handles {} at once: {} readings/s a worker",
            duration(model.work),
            count(model.lanes, "generator"),
            rate(model.handler)
        ),
        Limit::Handler => format!("each worker is limited to {} readings/s", rate(model.handler)),
        Limit::Cpu if model.is_full => format!(
            "no core is idle: {} for the workers, and a reading costs {}",
            cores(model.cores),
            duration(model.cpu)
        ),
        Limit::Cpu => format!(
            "a reading costs {} of CPU, and the workers can have {}",
            duration(model.cpu),
            cores(model.cores)
        ),
        Limit::Serial => format!(
            "a worker takes readings in one after the other, {} each: {} readings/s a worker",
            duration(1.0 / model.serial),
            rate(model.serial)
        ),
        Limit::FullestPartition => {
            let (number, fullest) = model.deals.fullest_partition();
            format!(
                "partition {number} has {} of the readings, and one worker holds a partition: it does {} readings/s",
                percent(fullest),
                rate(model.of_worker())
            )
        }
        Limit::HotGenerator => {
            let hot = model.hottest.as_ref();
            let (name, share) = hot.map_or(("one generator", 0.0), |hot| (&hot.generator, hot.share));
            if is_one_of_few(measurements, share) {
                return format!(
                    "there are only {}, and each is handled one reading after the other, {} each",
                    count(measurements.generators as usize, "generator"),
                    duration(model.work)
                );
            }
            format!(
                "{name} sends {} of the readings, and they are handled one after the other, {} each",
                percent(share),
                duration(model.work)
            )
        }
        Limit::PartitionsExhausted if workers > partitions => format!(
            "of {} only {} have a partition: a further one has nothing to do",
            count(workers, "worker"),
            partitions
        ),
        Limit::PartitionsExhausted => format!(
            "each of the {} has its worker: a further one has nothing to do",
            count(partitions, "partition")
        ),
        Limit::Uneven => format!(
            "of {} some hold {} of the {partitions} partitions and others {}: the fullest does {} of the readings",
            count(workers, "worker"),
            partitions.div_ceil(workers),
            partitions / workers,
            percent(model.fullest_worker)
        ),
        Limit::Broker | Limit::Produce => format!(
            "{} readings wait, and the workers wait for {}: they do {} readings/s and are hardly busy",
            rate(model.lag),
            if limit == Limit::Broker { "the broker" } else { "their commits" },
            rate(capacity)
        ),
        Limit::None => String::new(),
    }
}

/// Whether the hottest generator isn't hotter than all others: there are just too few.
fn is_one_of_few(measurements: &Measurements, share: f64) -> bool {
    measurements.generators > 0 && share * measurements.generators as f64 <= 1.5
}

impl Plan {
    /// Two sentences: what binds, and what to do.
    #[must_use]
    pub fn sentences(&self) -> [String; 2] {
        [self.what_binds(), self.what_to_do()]
    }

    fn what_binds(&self) -> String {
        let Binding { limit, why, .. } = &self.binding;
        if *limit == Limit::None {
            let next = self.next.as_ref().map(|next| {
                format!(
                    "; from {} readings/s on {} would bind, as {}",
                    rate(next.capacity),
                    spoken(next.limit),
                    next.why
                )
            });
            return format!("Nothing binds: {why}{}.", next.unwrap_or_default());
        }
        let next = self.next.as_ref().map(|next| {
            let gain = next.capacity / self.binding.capacity;
            format!(
                " Without that limit it would be {gain:.1} times as much, and {} would bind.",
                spoken(next.limit)
            )
        });
        let capacity = rate(self.binding.capacity);
        format!(
            "{} binds at {capacity} readings/s: {why}.{}",
            capital(spoken(*limit)),
            next.unwrap_or_default()
        )
    }

    fn what_to_do(&self) -> String {
        let mut told = if self.recommend.is_enough {
            let recommend = &self.recommend;
            let grow = if recommend.partitions > self.measured.partitions {
                format!("Grow the topic to {}, and run ", count(recommend.partitions, "partition"))
            } else {
                "Run ".to_owned()
            };
            format!(
                "{grow}{}: {} readings/s for {}",
                count(recommend.replicas, "worker"),
                rate(recommend.capacity),
                rate(self.target_rate)
            )
        } else {
            format!(
                "Neither workers nor partitions bring it to {} readings/s with room to spare: {} and {} do {}",
                rate(self.target_rate),
                count(self.recommend.replicas, "worker"),
                count(self.recommend.partitions, "partition"),
                rate(self.recommend.capacity)
            )
        };
        let gain = percent(self.one_more_replica.gain);
        told += &if self.one_more_replica.worth_it {
            format!("; one more than now would bring {gain} more")
        } else if self.binding.limit == Limit::None {
            format!("; now it is {}", grouped(self.measured.replicas as f64))
        } else {
            format!("; one more than now isn't worth it: it would bring {gain} more")
        };
        told + "."
    }
}

fn spoken(limit: Limit) -> &'static str {
    match limit {
        Limit::Handler => "the handler",
        Limit::Cpu => "the CPU",
        Limit::Serial => "the serial part of a worker",
        Limit::FullestPartition => "the fullest partition",
        Limit::HotGenerator => "a hot generator",
        Limit::PartitionsExhausted => "the number of partitions",
        Limit::Uneven => "the uneven deal of partitions",
        Limit::Broker => "the broker",
        Limit::Produce => "producing",
        Limit::None => "nothing",
    }
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn cores(number: f64) -> String {
    format!("{number:.1} cores")
}

/// Three significant digits, grouped by thousands.
fn rate(number: f64) -> String {
    if !number.is_finite() {
        return "any number of".to_owned();
    }
    if number < 10.0 {
        return format!("{}", (number * 100.0).round() / 100.0);
    }
    let unit = 10f64.powf(number.log10().floor() - 2.0).max(1.0);
    grouped((number / unit).round() * unit)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds >= 1.0 => format!("{seconds:.1} s"),
        _ if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.2} µs", seconds * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.5, 9.99, 499.6, 12_345.0, 2_460_000.4].map(rate),
            ["0.5", "9.99", "500", "12,300", "2,460,000"]
        );
        assert_eq!([2e-3, 0.41e-6, 3.0].map(duration), ["2.0 ms", "0.41 µs", "3.0 s"]);
    }
}
