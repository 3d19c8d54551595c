//! What the advisor said, beside what happened.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::setup::{Limit, Running, Setup};
use crate::world::World;
use crate::world::records::Group;

/// How long a rate is measured.
const SPAN: Duration = Duration::from_secs(8);
/// How long a new worker takes to work evenly.
const SETTLE: Duration = Duration::from_secs(6);

/// One set-up's result.
#[derive(Clone, Debug, Default)]
struct Grade {
    named: bool,
    /// What was said.
    said: String,
    /// Measured capacity before that.
    before: f64,
    /// Predicted against measured capacity with one more worker.
    next: Option<(f64, f64)>,
    /// Predicted against measured time until the lag was gone.
    drain: Option<(f64, f64)>,
    /// It was called worthwhile, and brought less than a tenth.
    wrong_yes: bool,
}

/// Runs set-ups of seeds and writes the table.
pub fn run() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().map_or(otherwise, |value| value.parse().expect("a number"))
    };
    let (from, count) = (number("GENWATCH_PLAN_FROM", 1), number("GENWATCH_PLAN_SEEDS", 6));
    let mut text = String::from(
        "| limit | seed | said | one more: predicted, measured | drained in: predicted, measured |\n|---|---|---|---|---|\n",
    );
    let mut grades = Vec::new();
    let only = std::env::var("GENWATCH_PLAN_ONLY").ok();
    let only: Option<Vec<&str>> = only.as_ref().map(|names| names.split(',').collect());
    for name in only.iter().flatten() {
        assert!(Limit::ALL.iter().any(|limit| limit.name() == *name), "there is no limit {name}");
    }
    let wanted = |limit: Limit| only.as_ref().is_none_or(|names| names.contains(&limit.name()));
    for seed in from..from + count {
        for (limit, grade) in side_by_side(seed, &wanted) {
            println!("{} {seed}: {grade:?}", limit.name());
            let pair = |pair: Option<(f64, f64)>| {
                pair.map_or("-".to_owned(), |(one, other)| format!("{one:.0}, {other:.0}"))
            };
            let _ = writeln!(
                text,
                "| {} | {seed} | {} | {} | {} |",
                limit.name(),
                if grade.named { "right".to_owned() } else { format!("**{}**", grade.said) },
                pair(grade.next),
                pair(grade.drain)
            );
            grades.push(grade);
        }
    }
    let share = |of: Vec<bool>| {
        let all = of.len().max(1);
        let good = of.into_iter().filter(|good| *good).count();
        format!("{good} of {all} ({:.0} %)", 100.0 * good as f64 / all as f64)
    };
    let within =
        |pair: Option<(f64, f64)>, part: f64| pair.map(|(said, was)| (said / was - 1.0).abs() <= part);
    let _ = writeln!(text, "\n* limit named: {}", share(grades.iter().map(|grade| grade.named).collect()));
    let next = grades.iter().filter_map(|grade| within(grade.next, 0.1)).collect();
    let _ = writeln!(text, "* capacity with one more within 10 %: {}", share(next));
    let drain = grades.iter().filter_map(|grade| within(grade.drain, 0.15)).collect();
    let _ = writeln!(text, "* time to drain within 15 % at half-way: {}", share(drain));
    let wrong = grades.iter().map(|grade| grade.wrong_yes).collect();
    let _ = writeln!(text, "* wrong \"add one\": {}", share(wrong));
    println!("\n{text}");
    if let Ok(path) = std::env::var("GENWATCH_PLAN_REPORT") {
        std::fs::write(path, text).expect("written");
    }
}

/// Most set-ups wait more than they compute: they run side by side. Those about the CPU run alone.
fn side_by_side(seed: u64, wanted: &impl Fn(Limit) -> bool) -> Vec<(Limit, Grade)> {
    let all = Limit::ALL.into_iter().filter(|limit| wanted(*limit));
    let (alone, together): (Vec<_>, Vec<_>) =
        all.partition(|limit| matches!(limit, Limit::Cpu | Limit::Serial));
    let mut grades: Vec<(Limit, Grade)> = std::thread::scope(|scope| {
        let running: Vec<_> =
            together.into_iter().map(|limit| (limit, scope.spawn(move || grade(limit, seed)))).collect();
        running.into_iter().map(|(limit, grade)| (limit, grade.join().expect("graded"))).collect()
    });
    grades.extend(alone.into_iter().map(|limit| (limit, grade(limit, seed))));
    grades
}

fn grade(limit: Limit, seed: u64) -> Grade {
    let setup = Setup::new(limit, seed);
    let world = World::empty();
    let mut running = setup.start(&world);
    // A quota makes everything come in bursts.
    let plan = match running.try_plan(if setup.quota.is_some() { "30s" } else { "15s" }) {
        Ok(plan) => plan,
        Err(said) => return Grade { said, ..Grade::default() },
    };
    let said = plan["binding"]["limit"].as_str().unwrap_or_default().to_owned();
    let mut grade = Grade { named: said == limit.name(), said, ..Grade::default() };
    if !grade.named {
        println!("{} {seed}: {plan:#}", limit.name());
    }
    if limit == Limit::None {
        grade.wrong_yes = plan["one_more_replica"]["worth_it"] == true;
        return grade;
    }
    let number = |path: &str| plan.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    let before = capacity(&running);
    let predicted = number("/measured/capacity") * (1.0 + number("/one_more_replica/gain"));
    running.add_worker();
    running.wait_until_dealt();
    running.wait_until_all_move();
    std::thread::sleep(SETTLE);
    let after = capacity(&running);
    (grade.before, grade.next) = (before, Some((predicted, after)));
    grade.wrong_yes = plan["one_more_replica"]["worth_it"] == true && after < 1.1 * before;
    // Behind a quota that takes minutes.
    if setup.quota.is_none() {
        grade.drain = drained(&mut running);
    }
    grade
}

/// The rate at which the group could go on for ever: that of the worker which falls behind most, by the share of what it
/// has. A worker deals its time out among its partitions as they have something, so those that fall behind count as one.
fn capacity(running: &Running<'_>) -> f64 {
    let span = if running.setup.quota.is_some() { 3 * SPAN } else { SPAN };
    let owners = running.owners();
    let (before, begun) = (running.world.progress(), Instant::now());
    std::thread::sleep(span);
    let (after, seconds) = (running.world.progress(), begun.elapsed().as_secs_f64());
    let arrived = |group: &Group| group.partitions.values().map(|(_, _, end)| *end).sum::<i64>();
    let all = (arrived(&after) - arrived(&before)) as f64;
    // What falls behind, by owner: readings done a second, and their share of all.
    let mut behind: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (id, (committed, low, end)) in &after.partitions {
        let (committed_before, low_before, end_before) = before.partitions[id];
        let next = committed.unwrap_or(*low);
        let done = (next - committed_before.unwrap_or(low_before)) as f64 / seconds;
        let owner = owners.get(id).map_or("", String::as_str);
        // One that keeps up says nothing.
        if (end - next) as f64 > done {
            let of_owner = behind.entry(owner).or_default();
            *of_owner = (of_owner.0 + done, of_owner.1 + (end - end_before) as f64 / all);
        }
    }
    let rates = behind.values().filter(|(_, share)| *share > 0.0).map(|(done, share)| done / share);
    let least = rates.fold(f64::INFINITY, f64::min);
    // All keep up.
    if least.is_finite() { least } else { all / seconds }
}

/// The feed ends; at about half-way the advisor is asked how long it will take.
fn drained(running: &mut Running<'_>) -> Option<(f64, f64)> {
    running.stop_feeding();
    let whole = running.world.progress().lag();
    let patience = Instant::now() + Duration::from_secs(90);
    while running.world.progress().lag() > whole * 7 / 10 {
        if Instant::now() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let asked = running.try_plan("5s").ok()?;
    let told = Instant::now();
    let said = asked["drain_seconds"].as_f64()?;
    while running.world.progress().lag() > 0 {
        if told.elapsed() > Duration::from_secs(120) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = told.elapsed().as_secs_f64();
    // What is gone at once says nothing.
    (took > 4.0).then_some((said, took))
}
