//! What a real server can't be made to do: answers that break off or take long. And InfluxDB 3, of which there is none
//! here: its query API as its documentation describes it.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::now_ns;
use crate::world::http::HttpRequest;
use crate::world::{World, http, until};

/// A request, as it came.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    authorization: String,
    body: Value,
}

/// What it is answered.
struct Answer {
    status: u16,
    headers: String,
    body: String,
    /// The answer ends without its end.
    breaks_off: bool,
}

impl Answer {
    fn of(body: String) -> Answer {
        Answer { status: 200, headers: String::new(), body, breaks_off: false }
    }
}

/// A server of HTTP on a port of its own. Its threads end with the test.
struct StandIn {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl StandIn {
    fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                // An error is a client that has gone.
                std::thread::spawn(move || drop(serve(stream, &seen, &*answer)));
            }
        });
        StandIn { url, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Answer,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let Some(came) = HttpRequest::read(&mut reader)? else { return Ok(()) };
        let request = Request {
            path: came.line.split(' ').nth(1).expect("a path").to_owned(),
            authorization: came.header("authorization").unwrap_or_default(),
            body: serde_json::from_slice(&came.body).expect("JSON"),
        };
        seen.lock().unwrap().push(request.clone());
        let Answer { status, headers, body, breaks_off } = answer(&request);
        write!(stream, "HTTP/1.1 {status} Some\r\nTransfer-Encoding: chunked\r\n{headers}\r\n")?;
        for piece in body.as_bytes().chunks(1000) {
            write!(stream, "{:x}\r\n", piece.len())?;
            stream.write_all(piece)?;
            write!(stream, "\r\n")?;
        }
        if breaks_off {
            return stream.shutdown(std::net::Shutdown::Both);
        }
        write!(stream, "0\r\n\r\n")?;
    }
}

/// The rows of a table that are in the range that a query in SQL asks for, as InfluxDB 3 answers.
fn answer_sql(request: &Request, rows: &[(i64, Value)]) -> String {
    let sql = request.body["q"].as_str().expect("a query");
    let times: Vec<i64> = sql
        .split("cast('")
        .skip(1)
        .map(|rest| {
            let time: jiff::Timestamp = rest.split('\'').next().unwrap().parse().expect("a time");
            i64::try_from(time.as_nanosecond()).unwrap()
        })
        .collect();
    let [from, to] = times[..] else { panic!("no range: {sql}") };
    let within = rows.iter().filter(|(at, _)| (from..to).contains(at));
    let line = |(at, row): &(i64, Value)| {
        let time = jiff::Timestamp::from_nanosecond((*at).into()).unwrap().to_string();
        let mut row = row.clone();
        // Without a zone, as Arrow writes it.
        row["time"] = time.trim_end_matches('Z').into();
        format!("{row}\n")
    };
    within.map(line).collect()
}

const SQL: &str = "SELECT * FROM plant WHERE $__timeFilter(time)";

fn by_sql(world: &World, influx: &StandIn, more: &[&str]) -> crate::world::process::Process {
    let own = ["--url", &influx.url, "--database", "plant", "--query", SQL, "--token", "s3cr3t"];
    let to = ["--to-topic", &world.topic, "--from", "1h", "--every", "100ms", "--key-column", "generatorID"];
    world.start("source influx", &[&own[..], &to, more].concat())
}

#[test]
fn rows_by_sql_arrive_once_and_late_ones_too_and_a_restart_resumes() {
    let world = World::new(3);
    let begun = now_ns() - 300_000_000_000;
    let row = move |n: i64| {
        (begun + n * 10_000_000, json!({ "generatorID": format!("g{}", n % 10), "fuel": n, "note": null }))
    };
    let rows: Arc<Mutex<Vec<(i64, Value)>>> = Arc::new(Mutex::new((0..2000).map(row).collect()));
    let table = Arc::clone(&rows);
    let influx = StandIn::start(move |request| Answer::of(answer_sql(request, &table.lock().unwrap())));
    let running = by_sql(&world, &influx, &[]);
    until("all are there", || world.readings().len() == 2000);
    rows.lock().unwrap().extend((0..100).map(|n| (begun + 5 + n, row(10_000 + n).1)));
    until("late ones are there", || world.readings().len() == 2100);
    running.stop();
    let ended = by_sql(&world, &influx, &["--exit-at-end"]).wait().success();
    assert_eq!([ended.number("rows"), ended.number("repeats")], [0, 2100], "{ended:#?}");
    let mut fuel: Vec<i64> = world.readings().values().map(|value| value["fuel"].as_i64().unwrap()).collect();
    fuel.sort_unstable();
    assert_eq!(fuel, (0..2000).chain(10_000..10_100).collect::<Vec<_>>());
    assert!(world.readings().iter().all(|record| record.key().starts_with('g')));
    let request = influx.requests().remove(0);
    assert_eq!(
        (request.path.as_str(), request.authorization.as_str()),
        ("/api/v3/query_sql", "Bearer s3cr3t")
    );
    assert_eq!((&request.body["db"], &request.body["format"]), (&json!("plant"), &json!("jsonl")));
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again_and_repeats_nothing() {
    let world = World::new(1);
    let begun = now_ns() - 60_000_000_000;
    let rows: Vec<(i64, Value)> =
        (0..1000).map(|n| (begun + n * 1_000_000, json!({ "generatorID": "g", "fuel": n }))).collect();
    let asked = AtomicUsize::new(0);
    let influx = StandIn::start(move |request| {
        let body = answer_sql(request, &rows);
        // Between two rows, where it looks complete.
        let breaks_off = !body.is_empty() && asked.fetch_add(1, Ordering::SeqCst) < 3;
        let half = body[..body.len() / 2].rfind('\n').map_or(0, |at| at + 1);
        let body = if breaks_off { body[..half].to_owned() } else { body };
        Answer { breaks_off, ..Answer::of(body) }
    });
    let ended = by_sql(&world, &influx, &["--exit-at-end"]).wait().success();
    assert_eq!([ended.number("rows"), ended.number("errors")], [1000, 3], "{ended:#?}");
    assert_eq!(world.readings().len(), 1000);
}

#[test]
fn a_line_that_is_no_row_ends_a_new_source_with_its_words_but_without_the_token() {
    let world = World::new(1);
    let influx = StandIn::start(|request| {
        Answer::of(format!("{{\"error\": \"out of memory for {}\"\n", request.authorization))
    });
    let ended = by_sql(&world, &influx, &[]).wait().refused(1, &["the query failed", "out of memory"]);
    assert!(!format!("{ended:?}").contains("s3cr3t"), "{ended:?}");
}

#[test]
fn an_overloaded_database_is_asked_again_when_it_says_so() {
    let world = World::new(1);
    let asked = Mutex::new(Vec::new());
    let times = Arc::new(asked);
    let seen = Arc::clone(&times);
    let influx = StandIn::start(move |_| {
        let mut times = seen.lock().unwrap();
        times.push(Instant::now());
        match times.len() {
            1 => Answer {
                status: 503,
                headers: "Retry-After: 2\r\n".to_owned(),
                ..Answer::of("{\"message\":\"busy\"}".to_owned())
            },
            _ => Answer::of(String::new()),
        }
    });
    let ended = by_sql(&world, &influx, &["--exit-at-end"]).wait().success();
    assert!(ended.stderr.contains("busy"), "{}", ended.stderr);
    let times = times.lock().unwrap();
    assert!(times[1] - times[0] >= Duration::from_secs(2), "{:?}", times[1] - times[0]);
}

#[test]
fn a_slow_answer_is_waited_for_and_sigterm_is_not() {
    let world = World::new(1);
    let influx = StandIn::start(|_| {
        std::thread::sleep(Duration::from_secs(30));
        Answer::of(String::new())
    });
    let running = by_sql(&world, &influx, &["--http", "127.0.0.1:0"]);
    let page = running.http();
    until("it has asked", || !influx.requests().is_empty());
    let begun = Instant::now();
    until("a loop that waited would be dead", || begun.elapsed() > Duration::from_secs(17));
    assert_eq!(http::get(&page, "/livez").0, 200);
    let told = Instant::now();
    running.stop();
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
}
