//! What the journal restores after each moment at which its writer can be stopped, or its file damaged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use berth_acs::messages as acs;
use proptest::prelude::*;

use super::*;
use crate::engine::TaskState;

fn entry(id: &str, at: i64) -> TaskEntry {
    TaskEntry {
        task: acs::Task { arn: id.to_owned(), ..Default::default() },
        state: TaskState::new(1),
        retired_at: Some(at),
        endpoint_ids: Default::default(),
    }
}

fn journal(folder: &Path) -> Journal {
    Journal::open(&folder.join("tasks.log")).unwrap()
}

/// What is kept, by id; nothing may be unreadable.
fn kept(journal: &Journal) -> BTreeMap<String, i64> {
    let (entries, unreadable) = journal.entries().unwrap();
    assert!(unreadable.is_empty(), "{unreadable:?}");
    entries.into_iter().map(|entry| (entry.task.arn, entry.retired_at.unwrap())).collect()
}

fn keep(journal: &Journal, id: &str, at: i64) {
    journal.keep([(id, &entry(id, at))]).unwrap();
}

/// A change of one of five tasks: kept as of then, or forgotten.
fn changes() -> impl Strategy<Value = Vec<(u8, Option<i64>)>> {
    prop::collection::vec((0..5_u8, prop::option::weighted(0.8, 0..1_000_i64)), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    /// Whatever moment the agent, or the machine, was stopped at: what is restored is what was kept after one of the changes, the last
    /// whose line is there whole; and the journal goes on from there.
    #[test]
    fn every_beginning_of_the_file_is_a_state_that_was(changes in changes()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.log");
        let journal = Journal::open(&path).unwrap();
        let mut model = BTreeMap::new();
        let mut states = vec![(fs::metadata(&path).unwrap().len(), model.clone())];
        for (number, at) in changes {
            let id = format!("task-{number}");
            match at {
                Some(at) => {
                    keep(&journal, &id, at);
                    model.insert(id, at);
                }
                None => {
                    journal.forget(&id).unwrap();
                    model.remove(&id);
                }
            }
            states.push((fs::metadata(&path).unwrap().len(), model.clone()));
        }
        prop_assert_eq!(kept(&journal), model);
        let bytes = fs::read(&path).unwrap();
        prop_assert_eq!(bytes.len() as u64, states.last().unwrap().0);
        // Around each line's end, and at every so many bytes, other ones in each case: all of them would take a minute.
        let is_near = |length: usize| states.iter().any(|(end, _)| length.abs_diff(usize::try_from(*end).unwrap()) <= 1);
        for length in (0..=bytes.len()).filter(|length| is_near(*length) || length % 41 == bytes.len() % 41) {
            let cut = folder.path().join("cut.log");
            fs::write(&cut, &bytes[..length]).unwrap();
            let journal = Journal::open(&cut).unwrap();
            let (_, expected) = states.iter().rev().find(|(end, _)| *end <= length as u64).unwrap_or(&states[0]);
            let mut expected = expected.clone();
            prop_assert_eq!(&kept(&journal), &expected, "the first {} bytes", length);
            keep(&journal, "later", 1);
            expected.insert("later".to_owned(), 1);
            prop_assert_eq!(&kept(&journal), &expected);
            drop(journal);
            prop_assert_eq!(kept(&Journal::open(&cut).unwrap()), expected);
        }
    }
}

#[test]
fn damage_in_the_middle_costs_what_it_hit_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.log");
    let first = journal(folder.path());
    keep(&first, "hit", 1);
    let hit = fs::metadata(&path).unwrap().len();
    keep(&first, "well", 2);
    drop(first);
    let mut bytes = fs::read(&path).unwrap();
    bytes[usize::try_from(hit).unwrap() - 5] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (entries, unreadable) = journal(folder.path()).entries().unwrap();
    assert_eq!(entries, [entry("well", 2)]);
    assert_eq!(unreadable.len(), 1);
    assert!(unreadable[0].to_string().contains("are damaged"), "{}", unreadable[0]);
}

#[test]
fn a_later_form_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let json = r#"{"version":9}"#;
    fs::write(folder.path().join("tasks.log"), format!("\u{1e}{:08x} {json}\n", crc32fast::hash(json.as_bytes()))).unwrap();
    let error = Journal::open(&folder.path().join("tasks.log")).unwrap_err();
    assert!(error.to_string().contains("a later version of Berth wrote it (form 9"), "{error}");
}

/// Two tasks change again and again from two threads, which meets compactions at every stage; a third one never changes.
#[test]
fn the_file_stays_small_and_right_while_it_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    keep(&journal, "quiet", 7);
    let changes = 4_000;
    std::thread::scope(|scope| {
        for id in ["one", "two"] {
            let journal = &journal;
            scope.spawn(move || (0..changes).for_each(|at| keep(journal, id, at)));
        }
        for number in 0..500 {
            let id = format!("gone-{number}");
            keep(&journal, &id, 0);
            journal.forget(&id).unwrap();
        }
    });
    let expected: BTreeMap<String, i64> =
        [("one", changes - 1), ("two", changes - 1), ("quiet", 7)].into_iter().map(|(id, at)| (id.to_owned(), at)).collect();
    assert_eq!(kept(&journal), expected);
    drop(journal);
    let written = u64::try_from(changes).unwrap() * 2 * line::kept("one", &entry("one", 0)).unwrap().len() as u64;
    let length = fs::metadata(folder.path().join("tasks.log")).unwrap().len();
    assert!(length < written / 2, "{length} bytes of {written} that were written");
    let journal = super::tests::journal(folder.path());
    assert_eq!(kept(&journal), expected);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
}

#[test]
fn a_compaction_that_was_cut_off_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    keep(&journal(folder.path()), "t", 1);
    let unfinished = folder.path().join("tasks.new");
    fs::write(&unfinished, line::kept("t", &entry("t", 0)).unwrap()).unwrap();
    assert_eq!(kept(&journal(folder.path())), [("t".to_owned(), 1)].into());
    assert!(!unfinished.exists());
}

#[test]
fn a_change_that_cannot_be_written_is_refused_and_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    keep(&journal, "t", 1);
    journal.refuse(true);
    let error = journal.keep([("t", &entry("t", 2))]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert_eq!(kept(&journal), [("t".to_owned(), 1)].into());
    journal.refuse(false);
    keep(&journal, "t", 3);
    drop(journal);
    assert_eq!(kept(&super::tests::journal(folder.path())), [("t".to_owned(), 3)].into());
}

#[tokio::test]
async fn a_change_is_told_until_it_is_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(folder.path());
    keep(&journal, "t", 1);
    journal.changed().await;
    journal.settle().unwrap();
    assert!(!journal.shared.unsettled.load(Ordering::Relaxed));
    let (told, ()) = tokio::join!(journal.changed(), async { keep(&journal, "t", 2) });
    told
}

const FOLDER: &str = "BERTH_TEST_JOURNAL";

/// Says what it has been told is kept.
#[test]
fn keeps_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        println!("SKIPPED (needs a parent that kills it): a_killed_agent_loses_nothing starts it again as a process of its own");
        return;
    };
    let journal = journal(Path::new(&folder));
    std::thread::scope(|scope| {
        for id in ["one", "two", "three"] {
            let journal = &journal;
            scope.spawn(move || {
                for at in 0.. {
                    keep(journal, id, at);
                    println!("kept {id} {at}");
                }
            });
        }
    });
}

#[test]
fn a_killed_agent_loses_nothing() {
    let name = "ledger::journal::tests::keeps_until_it_is_killed";
    // Deep into the file, across several compactions.
    for lines in [1, 50, 700, 6_000] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(FOLDER, folder.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut told = BTreeMap::new();
        let mut hear = |line: &str| {
            // The harness puts the test's name before the first.
            let Some(rest) = line.split("kept ").nth(1) else { return false };
            // A killed process's last line may be half a line.
            let (Some((id, at)), true) = (rest.trim_end().split_once(' '), rest.ends_with('\n')) else { return false };
            told.insert(id.to_owned(), at.parse::<i64>().unwrap());
            true
        };
        let mut heard = 0;
        while heard < lines {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended by itself");
            heard += usize::from(hear(&line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        for line in rest.split_inclusive('\n') {
            hear(line);
        }
        let journal = journal(folder.path());
        let kept = kept(&journal);
        assert!(!told.is_empty());
        for (id, at) in told {
            let found = kept.get(&id).copied();
            // One more may have been written that nobody was told of any more.
            assert!(found == Some(at) || found == Some(at + 1), "{id}: told {at}, kept {found:?}");
        }
    }
}
