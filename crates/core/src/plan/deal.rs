//! Which share of the readings a partition, and the fullest worker, has.
//!
//! The group gives each worker as many partitions as any other, give or take one, whatever they weigh.

use super::measurements::{KeyShare, Measurements, PartitionLoad};

/// If less than this part of what is processed arrives, it is a backlog that is worked off: the lag counts.
const ARRIVES: f64 = 0.1;

/// How many ways to deal are looked at.
const DEALS: u32 = 15;

/// The share of the readings that each partition has; equal ones if nothing is known.
pub(super) fn shares(partitions: &[PartitionLoad]) -> Vec<f64> {
    let sum = |value: fn(&PartitionLoad) -> f64| -> f64 { partitions.iter().map(value).sum() };
    let weight: fn(&PartitionLoad) -> f64 = if sum(|load| load.arrival) > ARRIVES * sum(|load| load.done) {
        |load| load.arrival
    } else if sum(|load| load.lag) > sum(|load| load.done) {
        |load| load.lag
    } else {
        |load| load.done
    };
    normal(partitions.iter().map(weight).collect())
}

fn normal(mut weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    let equal = 1.0 / weights.len() as f64;
    weights.iter_mut().for_each(|weight| *weight = if sum > 0.0 { *weight / sum } else { equal });
    weights
}

fn greatest(shares: &[f64]) -> f64 {
    shares.iter().copied().fold(0.0, f64::max)
}

/// Partitions with their shares, and some ways to deal them out among workers.
#[derive(Clone, Debug)]
pub(super) struct Deals {
    shares: Vec<f64>,
    /// The shares in orders that look like chance, and are the same each time.
    orders: Vec<Vec<f64>>,
}

impl Deals {
    pub(super) fn of(shares: Vec<f64>) -> Deals {
        let order = |deal: u32| {
            let mut order: Vec<usize> = (0..shares.len()).collect();
            order.sort_by_cached_key(|partition| {
                let seed =
                    (*partition as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ (u64::from(deal) << 32));
                (seed ^ (seed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
            });
            order.into_iter().map(|partition| shares[partition]).collect()
        };
        Deals { orders: (0..DEALS).map(order).collect(), shares }
    }

    pub(super) fn partitions(&self) -> usize {
        self.shares.len()
    }

    /// The number and the share of the fullest partition.
    pub(super) fn fullest_partition(&self) -> (usize, f64) {
        let fullest = greatest(&self.shares);
        (self.shares.iter().position(|share| *share == fullest).unwrap_or(0), fullest)
    }

    /// The share that the fullest of so many workers is to be expected to have: the median of the deals.
    pub(super) fn fullest_worker(&self, workers: usize) -> f64 {
        if workers >= self.shares.len() {
            return greatest(&self.shares);
        }
        if workers <= 1 {
            return 1.0;
        }
        let dealt = |order: &Vec<f64>| {
            let mut of_worker = vec![0.0; workers];
            order.iter().enumerate().for_each(|(place, share)| of_worker[place % workers] += share);
            greatest(&of_worker)
        };
        let mut seen: Vec<f64> = self.orders.iter().map(dealt).collect();
        seen.sort_by(f64::total_cmp);
        seen[seen.len() / 2]
    }

    /// The share of the worker that holds most now; if not all partitions are held, of the one that will.
    pub(super) fn fullest_now(&self, partitions: &[PartitionLoad], workers: usize) -> f64 {
        let mut of_worker = vec![0.0; workers];
        for (load, share) in partitions.iter().zip(&self.shares) {
            match load.worker.and_then(|worker| of_worker.get_mut(worker)) {
                Some(sum) => *sum += share,
                None => return self.fullest_worker(workers),
            }
        }
        greatest(&of_worker)
    }

    /// The same for another number of partitions: by the keys if some are known, else as many keys of equal weight would
    /// fall.
    pub(super) fn with(&self, partitions: usize, measurements: &Measurements) -> Deals {
        if partitions == self.partitions() {
            self.clone()
        } else {
            Deals::of(shares_of(measurements, partitions))
        }
    }
}

fn shares_of(measurements: &Measurements, partitions: usize) -> Vec<f64> {
    if !measurements.keys.is_empty() {
        let mut sums = vec![0.0; partitions];
        for KeyShare { hash, share } in &measurements.keys {
            sums[*hash as usize % partitions] += share;
        }
        return normal(sums);
    }
    let equal = 1.0 / partitions as f64;
    let hottest = measurements.hottest.first().map_or(0.0, |hot| hot.share);
    let most = (expected_skew(partitions, measurements.generators) * equal).max(hottest).min(1.0);
    let rest = (1.0 - most) / (partitions - 1).max(1) as f64;
    (0..partitions).map(|partition| if partition == 0 { most } else { rest }).collect()
}

/// By how much the fullest of so many bins exceeds the mean, if so many equal balls fall by chance (M. Raab, A. Steger,
/// "Balls into bins", 1998).
fn expected_skew(partitions: usize, generators: u64) -> f64 {
    let bins = partitions as f64;
    if partitions < 2 {
        return 1.0;
    }
    if generators == 0 {
        return 1.2;
    }
    (1.0 + (2.0 * bins * bins.ln() / generators as f64).sqrt()).min(bins)
}
