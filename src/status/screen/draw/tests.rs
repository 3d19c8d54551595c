//! Frames, as a user sees them.

use std::collections::BTreeMap;

use genwatch_core::report::{Held, HeldPhase};
use genwatch_core::types::{Offset, PartitionId};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::*;
use crate::status::roster::tests::report;
use crate::status::watched::{PartitionLook, TopicLook, Watched};

const NOW: Millis = Millis(1_766_400_000_000);

/// Eight looks at twelve partitions: the first one isn't owned, the second one is restored, all others keep up.
fn status(worker: &str) -> Status {
    let mut watched = Watched::new("genwatch");
    let mut said = report(worker, NOW.0, "1-11");
    said.group = Some("genwatch".to_owned());
    let (partition, phase) = (PartitionId(1), HeldPhase::Restoring);
    said.partitions =
        vec![Held { topic: None, partition, phase, position: None, since: NOW, assigned: None }];
    watched.roster.hear(None, Some(&said.to_json()), None);
    let mut status = None;
    for second in 0..8 {
        let look = |id: i32| {
            let (next, end) = if id == 0 { (0, 900 + 50 * second) } else { (100 * second, 100 * second) };
            let waiting_since = (id == 0).then_some(Millis(NOW.0 - 30_000));
            let committed = (id > 0).then_some(Offset(next));
            PartitionLook { committed, next: Offset(next), end: Offset(end), waiting_since }
        };
        let partitions: BTreeMap<_, _> = (0..12).map(|id| (PartitionId(id), look(id))).collect();
        let topic = "emergency_generators".to_owned();
        let now = Millis(NOW.0 - 7_000 + second * 1000);
        status = Some(watched.look(now, vec![TopicLook { topic, partitions }]));
    }
    status.expect("a look")
}

/// What is on the screen, line by line.
fn screen(width: u16, height: u16, state: &mut State, view: &View<'_>) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(frame, state, view)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width.max(1)));
    rows.map(|cells| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>()).collect()
}

fn view<'a>(rules: &'a Rules, status: Option<Status>, colours: bool) -> View<'a> {
    let mut view = View::new("localhost:9092", rules, Theme { colours });
    (view.now, view.status) = (NOW, status);
    view
}

#[test]
fn a_frame_has_what_a_user_must_see() {
    let rules = Rules::default();
    let view = view(&rules, Some(status("host-4242")), false);
    let shown = screen(140, 40, &mut State::default(), &view).join("\n");
    for wanted in [
        "group genwatch  topic emergency_generators",
        "10:40:00Z",
        "lag 1250  ETA never  arrivals 1150/s  processed 1100/s",
        "PART▲ OWNER",
        "COMMITTED",
        "1250 ▆▆▆▆▇▇▇█",
        "↗ growing",
        "30s",
        "never UNOWNED",
        "host-4242  restoring",
        "WORKER    KIND   STATE",
        "host-4242 worker restoring     500   50%  0.25 0.1.0    1-11",
        "q quit  s sort: partition",
    ] {
        assert!(shown.contains(wanted), "{wanted:?} in\n{shown}");
    }
}

#[test]
fn a_small_terminal_shows_the_most_important() {
    let rules = Rules::default();
    let view = view(&rules, Some(status("host-4242")), false);
    let eighty = screen(80, 24, &mut State::default(), &view).join("\n");
    for wanted in ["PHASE", "TREND", "TIME LAG", "REC/S", "ETA", "UNOWNED", "WORKER", "? help"] {
        assert!(eighty.contains(wanted), "{wanted:?} in\n{eighty}");
    }
    let sixty = screen(60, 15, &mut State::default(), &view).join("\n");
    for wanted in ["lag 1250", "OWNER", "TIME LAG", "UNOWNED", "rows 1 to 10 of 12"] {
        assert!(sixty.contains(wanted), "{wanted:?} in\n{sixty}");
    }
}

#[test]
fn no_size_and_no_mode_panics() {
    let rules = Rules::default();
    let mut view = view(&rules, Some(status("host-4242")), true);
    let mut history = History::new("g", PartitionId(0));
    let reading = br#"{"generatorID":"g","lat":1,"lon":2,"temperature":70,"pressure":200,"fuel":900}"#;
    history.hear_reading(Some(b"g"), Some(reading), NOW);
    for history in [None, Some(Err("why".to_owned())), Some(Ok(history))] {
        view.history = history;
        for mode in [
            Mode::Table,
            Mode::Help,
            Mode::Filter("x".repeat(300)),
            Mode::Generator("g".to_owned()),
            Mode::History("g".to_owned()),
        ] {
            for (width, height) in [(1, 1), (3, 2), (10, 3), (40, 5), (40, 24), (60, 15), (300, 100)] {
                let mut state = State { mode: mode.clone(), scroll: usize::MAX, ..State::default() };
                screen(width, height, &mut state, &view);
            }
        }
    }
    view.status = None;
    assert!(screen(40, 3, &mut State::default(), &view)[0].starts_with("asking Kafka at localhost:9092"));
}

#[test]
fn what_others_have_named_can_not_write_to_the_terminal() {
    let rules = Rules::default();
    let mut view = view(&rules, Some(status("me\u{1b}[2J\u{202e}")), false);
    view.trouble = Some("gone\u{1b}[31m".to_owned());
    view.now = Millis(NOW.0 + 60_000);
    let shown = screen(160, 40, &mut State::default(), &view).join("\n");
    assert!(shown.contains("me\\u{1b}[2J\\u{202e}") && shown.contains("gone\\u{1b}[31m"), "{shown}");
    let mut state = State { mode: Mode::History("g\u{9b}1m".to_owned()), ..State::default() };
    assert!(screen(80, 10, &mut state, &view).join("\n").contains("g\\u{9b}1m"));
}

#[test]
fn kafka_away_keeps_the_table_and_says_since_when() {
    let rules = Rules::default();
    let mut view = view(&rules, Some(status("host-4242")), false);
    view.now = Millis(NOW.0 + 5_000);
    let shown = screen(100, 24, &mut State::default(), &view).join("\n");
    assert!(shown.contains("Kafka does not answer since 10:40:00Z; trying again"), "{shown}");
    assert!(shown.contains("UNOWNED"), "{shown}");
}

#[test]
fn a_filter_is_said() {
    let rules = Rules::default();
    let view = view(&rules, Some(status("host-4242")), false);
    let mut state = State { problems: true, filter: "unowned".to_owned(), ..State::default() };
    let shown = screen(100, 24, &mut state, &view).join("\n");
    assert!(
        shown.contains("1 of 12 partitions: containing \"unowned\", with a problem, Esc shows all"),
        "{shown}"
    );
}

#[test]
fn owners_of_the_start_are_called_so() {
    let rules = Rules::default();
    let mut watched = Watched::new("g");
    watched.members(NOW, BTreeMap::new());
    let status = watched.look(NOW, vec![TopicLook { topic: "t".to_owned(), partitions: BTreeMap::new() }]);
    let view = view(&rules, Some(status), false);
    let shown = screen(80, 24, &mut State::default(), &view).join("\n");
    assert!(shown.contains("owners as of 10:40:00Z: nobody reports them in g_workers"), "{shown}");
}

#[test]
fn without_colours_there_are_none() {
    let rules = Rules::default();
    for colours in [true, false] {
        let mut view = view(&rules, Some(status("host-4242")), colours);
        view.now = Millis(NOW.0 + 60_000);
        let mut terminal = Terminal::new(TestBackend::new(140, 40)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &mut State::default(), &view)).expect("drawn");
        let cells = terminal.backend().buffer().content();
        let coloured = cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, colours);
    }
}

#[test]
fn a_generator_has_curves_thresholds_and_alarms() {
    let rules = Rules::default();
    let mut view = view(&rules, Some(status("host-4242")), false);
    let mut history = History::new("generator7", PartitionId(3));
    for second in 0..60 {
        let temperature = 70 + second;
        let reading = format!(
            r#"{{"generatorID":"generator7","lat":1,"lon":2,"temperature":{temperature},"pressure":200,"fuel":900}}"#
        );
        let at = Millis(NOW.0 - 60_000 + second * 1000);
        history.hear_reading(Some(b"generator7"), Some(reading.as_bytes()), at);
    }
    let alert = br#"{"id":"i","generatorID":"generator7","rule":"over_temperature","state":"raised","severity":"critical","field":"temperature","value":101.0,"threshold":100.0,"at":1766399971000,"since":1766399971000}"#;
    history.hear_alert(Some(b"generator7"), Some(alert));
    view.history = Some(Ok(history));
    let mut state = State { mode: Mode::History("generator7".to_owned()), ..State::default() };
    for (width, height) in [(140, 40), (80, 24), (60, 15)] {
        let shown = screen(width, height, &mut state, &view).join("\n");
        for wanted in
            ["generator7, partition 3: 60 readings", "129.0 °C   70.0 to 129.0", "pressure", "fuel", "█"]
        {
            assert!(shown.contains(wanted), "{wanted:?} in\n{shown}");
        }
        assert!(shown.contains("CRITICAL over_temperature since 2025-12-22T10:39:31Z"), "{shown}");
        if width >= 80 {
            assert!(shown.contains("over_temperature above 100"), "{shown}");
        }
    }
}
