//! `genwatch bench`: how fast it drains, scales out and reacts.

mod options;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use genwatch_bench::bare::{self, BARE_LOOPS, BareConfig};
use genwatch_bench::bridge::BridgeBenchConfig;
use genwatch_bench::contender::Contender;
use genwatch_bench::database::{self, DatabaseAccess};
use genwatch_bench::drain::DrainConfig;
use genwatch_bench::latency::LatencyConfig;
use genwatch_bench::partitions::PartitionsConfig;
use genwatch_bench::produce::ProduceConfig;
use genwatch_bench::rebalance::RebalanceConfig;
use genwatch_bench::report::Report;
use genwatch_bench::scale::ScaleConfig;
use genwatch_bench::sink::{BareWriter, Connect, SinkBenchConfig};
use genwatch_bench::verify::{AlertsReader, VerifiedTopics};
use genwatch_bench::{self as bench, BenchError, Tell};
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::config::Connection;
use genwatch_kafka::consumer::Record;
use genwatch_kafka::topic_reader::StartAt;
use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::influx::http::{Token, agent};
use crate::mqtt;
use crate::sink::SourceRecord;
use crate::sink::influx::client::{Client, Destination};
use crate::sink::influx::line_protocol::{PointShape, Precision};
use crate::sink::influx::response::Verdict;

pub(super) use options::Options;
use options::{
    Bare, Benchmark, Bridge, Drain, Latency, Partitions, Produce, Rebalance, Scale, Shared, Sink, Verify,
};

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    match &options.benchmark {
        Benchmark::Drain(options) => drain(options),
        Benchmark::Scale(options) => scale(options),
        Benchmark::Latency(options) => latency(options),
        Benchmark::Partitions(options) => partitions(options),
        Benchmark::Produce(options) => produce(options),
        Benchmark::Rebalance(options) => rebalance(options),
        Benchmark::Bridge(options) => bridge(options),
        Benchmark::Sink(options) => sink(options),
        Benchmark::Plot(options) => plot(&options.folder),
        Benchmark::Table(options) => table(&options.folder),
        Benchmark::Verify(options) => verify(options),
        Benchmark::Bare(options) => run_bare(options),
    }
}

fn drain(options: &Drain) -> Result<(), Failure> {
    let mut contenders = vec![worker(&options.worker_name, &options.worker)?];
    if !options.no_bare {
        contenders.push(Contender::bare(BARE_LOOPS[0], &["--client", "base"])?);
        contenders.push(Contender::bare(BARE_LOOPS[1], &["--client", "stream"])?);
        contenders.push(Contender::bare("bare + transactions", &["--client", "base", "--transactions"])?);
    }
    contenders.extend(options.peers.peer.iter().cloned());
    let config = DrainConfig {
        connection: options.shared.connection()?,
        baselines: if options.no_bare {
            vec![options.worker_name.clone()]
        } else {
            BARE_LOOPS.map(str::to_owned).to_vec()
        },
        contenders,
        count: options.count,
        generators: options.generators,
        partitions: options.partitions,
        repetitions: options.repetitions,
        work: options.work,
        seed: options.shared.seed,
    };
    options.shared.publish(|stop, tell| bench::drain::run(&config, stop, tell))?;
    Ok(())
}

fn scale(options: &Scale) -> Result<(), Failure> {
    if options.replicas.is_empty() || options.replicas.contains(&0) || !options.replicas.is_sorted() {
        return Err(Failure::usage(anyhow::anyhow!(
            "--replicas must be ascending numbers from 1, such as 1,2,3,6"
        )));
    }
    let config = ScaleConfig {
        connection: options.shared.connection()?,
        worker: worker("genwatch", &options.worker)?,
        replicas: options.replicas.clone(),
        partitions: options.partitions,
        generators: options.generators,
        work: options.work,
        rate: f64::from(options.rate),
        duration: options.duration,
        warm_up: options.warm_up,
        seed: options.shared.seed,
    };
    let report = options.shared.publish(|stop, tell| bench::scale::run(&config, stop, tell))?;
    if !options.shared.json {
        let mut out = std::io::stdout();
        match bench::scale::demand(&report, f64::from(options.rate)) {
            Some(replicas) => {
                writeln!(out, "demand of {} readings a second: {replicas} workers", options.rate)?
            }
            None => writeln!(out, "none of these holds {} readings a second", options.rate)?,
        }
    }
    Ok(())
}

fn latency(options: &Latency) -> Result<(), Failure> {
    let mut contenders = vec![
        worker("genwatch exactly-once", "--delivery exactly-once")?,
        worker("genwatch at-least-once", "--delivery at-least-once")?,
    ];
    contenders.extend(options.peers.peer.iter().cloned());
    let config = LatencyConfig {
        connection: options.shared.connection()?,
        contenders,
        rate: options.rate,
        duration: options.duration,
        warm_up: options.warm_up,
        generators: options.generators,
        partitions: options.partitions,
        repetitions: options.repetitions,
    };
    options.shared.publish(|stop, tell| bench::latency::run(&config, stop, tell))?;
    Ok(())
}

fn partitions(options: &Partitions) -> Result<(), Failure> {
    if options.partitions.iter().any(|partitions| *partitions < 1) {
        return Err(Failure::usage(anyhow::anyhow!("--partitions must be numbers from 1, such as 1,6,12")));
    }
    let config = PartitionsConfig {
        connection: options.shared.connection()?,
        worker: worker("genwatch", "")?,
        partitions: options.partitions.clone(),
        count: options.count,
        generators: options.generators,
        repetitions: options.repetitions,
        work: options.work,
        seed: options.shared.seed,
    };
    options.shared.publish(|stop, tell| bench::partitions::run(&config, stop, tell))?;
    Ok(())
}

fn produce(options: &Produce) -> Result<(), Failure> {
    let mut contenders = vec![Contender::simulator(options.generators, options.shared.seed)?];
    contenders.extend(options.peer.iter().cloned());
    let config = ProduceConfig {
        connection: options.shared.connection()?,
        contenders,
        count: options.count,
        partitions: options.partitions,
        repetitions: options.repetitions,
    };
    options.shared.publish(|stop, tell| bench::produce::run(&config, stop, tell))?;
    Ok(())
}

fn rebalance(options: &Rebalance) -> Result<(), Failure> {
    let mut contenders = vec![worker("genwatch", &options.worker)?];
    contenders.extend(options.peers.peer.iter().cloned());
    let config = RebalanceConfig {
        connection: options.shared.connection()?,
        contenders,
        scenarios: options.scenario.iter().map(|scenario| scenario.0).collect(),
        events: options.events,
        rate: options.rate,
        partitions: options.partitions,
    };
    options.shared.publish(|stop, tell| bench::rebalance::run(&config, stop, tell))?;
    Ok(())
}

fn sink(options: &Sink) -> Result<(), Failure> {
    let token = Token::new(options.token.as_str()).map_err(Failure::usage)?;
    let ca_file = options.ca_file.as_deref();
    let access = DatabaseAccess {
        url: options.url.clone(),
        org: options.org.clone(),
        authorization: token.header().clone(),
        agent: agent(&options.url, ca_file, database::TIMEOUT).map_err(Failure::usage)?,
    };
    let batch = options.batch.to_string();
    let arguments = ["--url", &options.url, "--org", &options.org, "--batch", &batch];
    let more = options.sink.split_whitespace();
    let mut arguments: Vec<OsString> = arguments.into_iter().chain(more).map(OsString::from).collect();
    if let Some(file) = &options.ca_file {
        arguments.extend(["--ca-file".into(), file.into()]);
    }
    let config = SinkBenchConfig {
        connection: options.shared.connection()?,
        access,
        writer: BareWriter { line: append_line, connect: connector(options, token) },
        sink: Contender::sink(&arguments, options.token.as_str())?,
        bare: options.bare_connections.iter().copied().map(usize::from).collect(),
        batch: options.batch as usize,
        count: options.count,
        generators: options.generators,
        partitions: options.partitions,
        repetitions: options.repetitions,
        seed: options.shared.seed,
    };
    options.shared.publish(|stop, tell| bench::sink::run(&config, stop, tell))?;
    Ok(())
}

/// Makes the line as the sink writes it.
fn append_line(topic: &str, record: &Record<'_>, lines: &mut String) -> Result<(), String> {
    let (at, offset) = (Some(record.timestamp), record.offset);
    let source = SourceRecord { key: record.key, value: record.value, at, offset, ..SourceRecord::default() };
    let appended = PointShape::of_readings(topic, Precision::Ns).append(&source, lines);
    appended.map_err(|reason| reason.to_string())
}

fn connector(options: &Sink, token: Token) -> Connect {
    let (url, org, ca_file) = (options.url.clone(), options.org.clone(), options.ca_file.clone());
    Box::new(move |bucket| {
        let (url, org, bucket) = (url.clone(), org.clone(), bucket.to_owned());
        let destination = Destination { url, org, bucket, precision: Precision::Ns };
        let client = Client::new(destination, Some(token.clone()), ca_file.as_deref());
        let client = client.map_err(|error| error.to_string())?;
        Ok(Box::new(move |lines: &str| match client.write(lines) {
            Verdict::Written => Ok(()),
            other => Err(format!("{other:?}")),
        }))
    })
}

fn bridge(options: &Bridge) -> Result<(), Failure> {
    let config = BridgeBenchConfig {
        connection: options.shared.connection()?,
        connect: mqtt::client::new,
        timestamp: mqtt::message::TIMESTAMP,
        bridges: options.bridges.iter().map(|bridges| *bridges as usize).collect(),
        count: options.count,
        generators: options.generators,
        partitions: options.partitions,
        repetitions: options.repetitions,
        seed: options.shared.seed,
    };
    options.shared.publish(|stop, tell| bench::bridge::run(&config, stop, tell))?;
    Ok(())
}

fn run_bare(options: &Bare) -> Result<(), Failure> {
    let config = BareConfig {
        connection: Connection::new(&options.brokers, &options.properties).map_err(Failure::usage)?,
        topic: options.topic.clone(),
        group: options.group.clone(),
        work_ms: options.work_ms,
        count: options.count,
        client: options.client.0,
        transactions: options.transactions,
    };
    Ok(bare::run(&config)?)
}

fn plot(folder: &Path) -> Result<(), Failure> {
    for path in bench::plot::draw(folder)? {
        writeln!(std::io::stdout(), "{}", path.display())?;
    }
    Ok(())
}

fn table(folder: &Path) -> Result<(), Failure> {
    let results = bench::report::read(folder)?;
    write!(std::io::stdout(), "{}", bench::targets::table(&results))?;
    Ok(())
}

fn verify(options: &Verify) -> Result<(), Failure> {
    let connection = options.cluster.connection()?;
    let cluster = Cluster::connect(&connection)?;
    let topics = options.cluster.topics();
    let (readings, alerts) = (&topics.readings, &topics.alerts);
    let source = VerifiedTopics { connection: &connection, cluster: &cluster, readings, alerts };
    let stop = super::stop_on_signals()?;
    let expected = bench::verify::expected(&source, &stop)?;
    AlertsReader::new(source, StartAt::Beginning)?.check("the group", &expected, &stop)?;
    writeln!(std::io::stdout(), "{}", serde_json::json!({ "alerts": expected.alerts, "verified": true }))?;
    Ok(())
}

/// A worker with these options, separated by spaces.
pub(super) fn worker(name: &str, options: &str) -> std::io::Result<Contender> {
    let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
    Contender::worker(name, &options)
}

impl Shared {
    fn connection(&self) -> Result<Connection, Failure> {
        Connection::new(&self.brokers, &self.properties).map_err(Failure::usage)
    }

    /// Runs a benchmark and shows its progress; writes and prints the results.
    fn publish(
        &self,
        run: impl FnOnce(&AtomicBool, Tell<'_>) -> Result<Report, BenchError>,
    ) -> Result<Report, Failure> {
        let stop = super::stop_on_signals()?;
        bench::report::check_writable(&self.results)
            .map_err(|error| Failure::Usage(anyhow::anyhow!("--results: {error}")))?;
        let progress = progress();
        let told = RefCell::new(String::new());
        let tell = |words: &str, done, of| {
            // Without a visible bar, each step is a line.
            if told.borrow().as_str() != words {
                words.clone_into(&mut told.borrow_mut());
                if progress.is_hidden() {
                    tracing::info!("{words}");
                }
                progress.set_message(words.to_owned());
            }
            progress.set_length(of);
            progress.set_position(done);
        };
        let outcome = run(&stop, &tell);
        progress.finish_and_clear();
        let report = outcome?;
        let path = report.write(&self.results, self.name.as_deref().unwrap_or(report.benchmark))?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", report.to_json())?;
        } else {
            write!(out, "{}", report.to_table())?;
            writeln!(out, "written to {}", path.display())?;
        }
        Ok(report)
    }
}

/// A bar on a terminal; hidden elsewhere.
pub(super) fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed} {bar:24} {pos}/{len} {msg}");
    // The template is a constant; an invalid one falls back to indicatif's default.
    let bar = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
