//! What is counted is what the server saw.

use std::fs;
use std::io::{BufRead as _, BufReader};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Place, text};
use crate::server::{Script, Seen, start};

const EVENTS: u64 = 2000;
const MIXED: &str = "--seconds 60 --warm-up-seconds 0 --connections 8 --events-max 2000 \
    --duplicates 10 --bad-signatures 5 --junk 1 --seed 11";

#[test]
fn every_sending_is_counted_as_what_it_was() {
    let place = Place::new();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (address, seen) = start(&place, Script { busy_every: Some(50), ..Script::default() });
        let (load, _) = place.load(address, MIXED);
        load.assert_whole();
        assert_eq!((load.count("sent"), load.count("failed")), (EVENTS, 0));
        assert_eq!(load.count("accepted"), Seen::of(&seen.new) + Seen::of(&seen.repeated));
        assert_eq!(load.count("duplicates"), Seen::of(&seen.repeated));
        assert_eq!(load.count("duplicates"), load.count("repeated"));
        assert_eq!(load.count("expected_refusals"), Seen::of(&seen.wrong));
        assert_eq!(load.count("wrongly_accepted"), 0);
        assert_eq!(load.count("junk"), Seen::of(&seen.junk));
        assert_eq!(load.refused().get("429").copied(), Some(Seen::of(&seen.busy)));
        assert_eq!((load.count("retry_after_s_max"), load.refused().len()), (3, 2));
        // Junk costs its connection, and nothing else does; the last may not be needed any more.
        assert!((8..=8 + load.count("junk")).contains(&load.count("connects")), "{}", load.count("connects"));
        kinds.push([load.count("repeated"), load.count("expected_refusals"), load.count("junk")]);
    }
    assert_eq!(kinds[0], kinds[1], "a seed gives its shares");
    for (count, percent) in kinds[0].into_iter().zip([10, 5, 1]) {
        let expected = EVENTS * percent / 100;
        assert!((expected / 2..expected * 2).contains(&count), "{count} of {expected}");
    }
}

#[test]
fn an_open_loop_offers_what_its_schedule_has() {
    let place = Place::new();
    let (address, seen) = start(&place, Script::default());
    for (arrivals, offered) in [("uniform", 400), ("burst:40", 400)] {
        let before = Seen::of(&seen.new);
        let words =
            format!("--rate 200 --arrivals {arrivals} --seconds 2 --warm-up-seconds 0.5 --connections 8");
        let (load, _) = place.load(address, &words);
        load.assert_whole();
        assert_eq!((load.count("offered"), load.count("unsent")), (offered, 0), "{arrivals}");
        assert_eq!(load.count("accepted"), offered);
        // The warm-up was as fast, and is not counted; a burst comes in it as a whole.
        let warm_up = Seen::of(&seen.new) - before - offered;
        assert!((100..=120).contains(&warm_up), "{arrivals}: {warm_up}");
    }
}

#[test]
fn a_connection_for_each_event_resumes_unless_it_must_not() {
    let place = Place::new();
    let (address, _) = start(&place, Script::default());
    let words = "--new-connections --seconds 60 --warm-up-seconds 0 --connections 4 --events-max 200";
    let (resuming, _) = place.load(address, words);
    resuming.assert_whole();
    assert_eq!((resuming.count("accepted"), resuming.count("connects")), (200, 201));
    // Those that were dialled before the first tickets came.
    assert!(resuming.count("resumed") >= 190, "{}", resuming.count("resumed"));
    let (full, _) = place.load(address, &format!("{words} --no-resumption --key-exchange x25519"));
    assert_eq!((full.count("accepted"), full.count("resumed"), full.count("connects")), (200, 0, 201));
}

#[test]
fn records_and_logs_have_every_event() {
    let place = Place::new();
    let (address, _) = start(&place, Script::default());
    let (record, log) = (place.file("record.tsv"), place.file("load.hlog"));
    let words = format!(
        "--seconds 2 --warm-up-seconds 0 --connections 4 --duplicates 20 --mix github --record {} --hdr {}",
        record.display(),
        log.display()
    );
    let (load, output) = place.load(address, &words);
    load.assert_whole();
    let lines = fs::read_to_string(record).expect("a record");
    let mut ids: Vec<&str> = Vec::new();
    for line in lines.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [number, id, digest] = fields[..] else { panic!("{line}") };
        assert!(number.parse::<u64>().is_ok() && id.starts_with("zen-") && digest.len() == 64, "{line}");
        ids.push(id);
    }
    let count = ids.len() as u64;
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len() as u64, count), (count, load.count("accepted") - load.count("duplicates")));

    let text_of_log = fs::read(log).expect("a log");
    let mut logged = 0;
    for entry in IntervalLogIterator::new(&text_of_log) {
        if let LogEntry::Interval(interval) = entry.expect("an entry") {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram());
            let mut deserializer = Deserializer::new();
            let one: Histogram<u64> =
                deserializer.deserialize(&mut bytes.expect("base64").as_slice()).expect("a histogram");
            logged += one.len();
        }
    }
    assert_eq!(logged, load.count("accepted"));
    let table = text(&output.stdout);
    for row in ["throughput", "accepted", "p99.9", "client"] {
        assert!(table.contains(row), "{row}: {table}");
    }
}

#[test]
fn ctrl_c_ends_the_span_and_the_result_is_written() {
    let place = Place::new();
    let (address, _) = start(&place, Script::default());
    let mut child = place.start(address, "--seconds 600 --warm-up-seconds 0 --connections 4");
    let mut lines =
        BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut phases = Vec::new();
    for line in lines.by_ref() {
        let is_measure = line == "phase measure";
        phases.push(line);
        if is_measure {
            break;
        }
    }
    kill(Pid::from_raw(i32::try_from(child.id()).expect("an id")), Signal::SIGINT).expect("it runs");
    phases.extend(lines.filter(|line| line.starts_with("phase ")));
    assert!(child.wait().expect("it ends").success());
    assert_eq!(phases, ["phase warm-up", "phase measure", "phase drain", "phase done"]);
    let load = place.result();
    load.assert_whole();
    assert!(load.number("seconds") < 300.0 && load.count("failed") == 0);
}
