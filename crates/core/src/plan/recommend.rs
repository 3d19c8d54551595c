//! Partitions and workers for a rate.

use super::limits::{self, Dealt};
use super::measurements::Measurements;
use super::model::Model;
use super::{ROOM, Recommendation};

/// Numbers of partitions with many divisors, so that many numbers of workers can be dealt evenly.
const DIVISIBLE: [usize; 17] = [1, 2, 4, 6, 12, 24, 36, 48, 60, 120, 180, 240, 360, 720, 840, 1260, 2520];

/// Within this part of the most that can be attained, more workers are in vain.
const NEARLY: f64 = 0.95;

/// The least that suffices. Workers before partitions: growing a topic moves generators to other partitions, so their
/// order is Kafka's no more. Larger numbers of partitions never get fewer workers than smaller ones had in vain, so the
/// answer is monotone in the rate.
pub(super) fn recommend(model: &Model, measurements: &Measurements, target: f64) -> Recommendation {
    let wanted = ROOM * target;
    let present = model.deals.partitions();
    let larger = DIVISIBLE.iter().copied().filter(|partitions| *partitions > present);
    let mut least_workers = 1;
    let mut best: Option<Recommendation> = None;
    for partitions in std::iter::once(present).chain(larger) {
        let deals = model.deals.with(partitions, measurements);
        let of = |(replicas, capacity): (usize, f64), is_enough: bool| Recommendation {
            partitions,
            replicas,
            concurrency: model.lanes,
            capacity,
            is_enough,
        };
        let mut capacities = Vec::new();
        for workers in least_workers..=partitions {
            let capacity = limits::binding(model, Dealt::of(workers, &deals), None).capacity;
            if capacity >= wanted {
                return of((workers, capacity), true);
            }
            capacities.push((workers, capacity));
        }
        let most = capacities.iter().map(|(_, capacity)| *capacity).fold(0.0, f64::max);
        let Some(nearly) = capacities.iter().find(|(_, capacity)| *capacity >= NEARLY * most) else { break };
        // More partitions that bring nothing aren't recommended.
        if best.is_none_or(|best| most > best.capacity / NEARLY) {
            best = Some(of(*nearly, false));
        } else {
            break;
        }
        least_workers = nearly.0;
    }
    best.unwrap_or(Recommendation {
        partitions: present,
        replicas: model.workers.min(present),
        concurrency: model.lanes,
        capacity: 0.0,
        is_enough: false,
    })
}
