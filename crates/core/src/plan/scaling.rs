//! What one more worker brings, corrected by what other sizes of the group have attained.
//!
//! The universal scalability law (N. J. Gunther, "A General Theory of Computational Scalability Based on Rational
//! Functions", 2008): `X(n) = l n / (1 + s (n - 1) + k n (n - 1))`, with contention `s` and coherency `k`. As
//! `n / X(n)` is linear in `1 / l`, `s / l` and `k / l`, they are found by linear least squares.

use super::limits::{self, Dealt};
use super::model::Model;

/// So many sizes have to be seen before they count.
const SIZES: usize = 4;

/// By which part the capacity grows with one more worker; `capacity` is the present one.
pub(super) fn gain(model: &Model, capacity: f64) -> f64 {
    let next = limits::binding(model, Dealt::among(model.workers + 1, model), None).capacity;
    let gain = (next / capacity - 1.0).max(0.0);
    let Some(law) = Law::fit(&model.attained) else { return gain };
    let seen = law.rate(model.workers + 1) / law.rate(model.workers) - 1.0;
    gain.min(seen).max(0.0)
}

/// How the rate follows the number of workers.
#[derive(Clone, Copy, Debug)]
struct Law {
    /// `1 / l`, `s / l`, `k / l`.
    terms: [f64; 3],
}

impl Law {
    /// `None` with too few sizes.
    fn fit(attained: &[(usize, f64)]) -> Option<Law> {
        let known: Vec<(f64, f64)> = attained
            .iter()
            .filter(|(_, rate)| *rate > 0.0)
            .map(|(workers, rate)| (*workers as f64, *rate))
            .collect();
        let mut sizes: Vec<u64> = known.iter().map(|(workers, _)| *workers as u64).collect();
        sizes.sort_unstable();
        sizes.dedup();
        if sizes.len() < SIZES {
            return None;
        }
        // Neither contention nor coherency is negative: a term that would be is left out.
        for left_out in [&[][..], &[2], &[1], &[1, 2]] {
            let terms = least_squares(&known, left_out)?;
            if terms[0] > 0.0 && terms.iter().all(|term| *term >= 0.0) {
                return Some(Law { terms });
            }
        }
        None
    }

    fn rate(self, workers: usize) -> f64 {
        let [one, contention, coherency] = self.terms;
        let n = workers as f64;
        n / (one + contention * (n - 1.0) + coherency * n * (n - 1.0))
    }
}

/// The terms of `n / X(n)`; those that are left out are 0.
fn least_squares(known: &[(f64, f64)], left_out: &[usize]) -> Option<[f64; 3]> {
    let mut matrix = [[0.0; 4]; 3];
    for (n, rate) in known {
        let row = [1.0, n - 1.0, n * (n - 1.0)];
        // Relative errors count: a rate of many workers is no more exact.
        let weight = (rate / n).powi(2);
        for (i, line) in matrix.iter_mut().enumerate() {
            for (j, cell) in line.iter_mut().enumerate() {
                *cell += weight * row[i] * if j < 3 { row[j] } else { n / rate };
            }
        }
    }
    for &term in left_out {
        matrix.iter_mut().for_each(|line| line[term] = 0.0);
        matrix[term] = [0.0; 4];
        matrix[term][term] = 1.0;
    }
    solve(matrix)
}

/// Gauss, with pivots.
fn solve(mut matrix: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for column in 0..3 {
        let pivot =
            (column..3).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        matrix.swap(column, pivot);
        let scale = matrix[column][column];
        if scale.abs() < 1e-12 {
            return None;
        }
        matrix[column].iter_mut().for_each(|cell| *cell /= scale);
        let line = matrix[column];
        for (_, other) in matrix.iter_mut().enumerate().filter(|(row, _)| *row != column) {
            let factor = other[column];
            other.iter_mut().zip(line).for_each(|(cell, above)| *cell -= factor * above);
        }
    }
    Some([matrix[0][3], matrix[1][3], matrix[2][3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_is_found_again() {
        let law = |n: usize| 500.0 * n as f64 / (1.0 + 0.05 * (n as f64 - 1.0) + 0.01 * (n * (n - 1)) as f64);
        let attained: Vec<(usize, f64)> = [1, 2, 4, 8].map(|n| (n, law(n))).to_vec();
        let found = Law::fit(&attained).unwrap();
        for n in 1..20 {
            assert!((found.rate(n) / law(n) - 1.0).abs() < 1e-6, "{n}");
        }
        assert!(Law::fit(&attained[..3]).is_none());
    }

    #[test]
    fn a_group_that_scales_better_than_linearly_has_no_contention() {
        let attained = [(1, 100.0), (2, 205.0), (3, 310.0), (4, 420.0)];
        let found = Law::fit(&attained).unwrap();
        assert!((found.rate(5) / found.rate(4) - 1.25).abs() < 0.01);
    }
}
