//! Counts the instructions of the system's processes, and what SQLite does in them, under callgrind, where that is installed.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use super::cost::ByRelation;

/// SQLite's function by which alone a page of a database is looked at, whether or not it must be read first.
const PAGE: &str = "getPageNormal";
/// SQLite's functions that look for an entry of a table or an index, go to the next, write one, and delete one.
const ENTRIES: [&str; 6] = [
    "sqlite3BtreeTableMoveto",
    "sqlite3BtreeIndexMoveto",
    "sqlite3BtreeFirst",
    "sqlite3BtreeNext",
    "sqlite3BtreeInsert",
    "sqlite3BtreeDelete",
];

/// SQLite's function that goes to a page of a tree, and those that call it to go one level down, as opposed to the root.
const TREE_PAGE: &str = "getAndInitPage";
const DOWN: [&str; 2] = ["moveToChild", "sqlite3BtreeIndexMoveto"];

/// What processes counted, all of them together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    /// By SQLite's functions. Empty: it is in none of them, or the names of its functions are not.
    pub(crate) sqlite: ByRelation,
    /// How many of those pages were looked at below the roots of trees: more in deeper ones.
    pub(crate) below_roots: f64,
}

/// A program that is ours, under callgrind as long as that is wanted.
#[derive(Debug)]
pub(crate) struct Counted {
    program: PathBuf,
    folder: PathBuf,
    /// As long as this is there, whoever starts counts.
    mark: PathBuf,
}

impl Counted {
    /// `None`: callgrind is not installed.
    pub(crate) fn new(binary: &Path, folder: &Path) -> anyhow::Result<Option<Self>> {
        let there = Command::new("valgrind").args(["--tool=callgrind", "--version"]).output();
        if !there.is_ok_and(|output| output.status.success()) {
            return Ok(None);
        }
        let counted =
            Self { program: folder.join("counted"), folder: folder.join("counts"), mark: folder.join("count-instructions") };
        fs::create_dir_all(&counted.folder)?;
        let (binary, folder, mark) = (binary.display(), counted.folder.display(), counted.mark.display());
        // Processes know no difference: arguments, pipes, signals and the process's number are the same.
        let script = format!(
            "#!/bin/sh\n[ -e '{mark}' ] || exec '{binary}' \"$@\"\nexec valgrind --quiet --tool=callgrind --fair-sched=yes \
             --callgrind-out-file='{folder}/%p' '{binary}' \"$@\"\n"
        );
        fs::write(&counted.program, script).context("cannot write the program that counts")?;
        fs::set_permissions(&counted.program, fs::Permissions::from_mode(0o755))?;
        Ok(Some(counted))
    }

    /// What processes are to be started from.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Whoever starts from now on counts, or not.
    pub(crate) fn count(&self, wanted: bool) -> anyhow::Result<()> {
        if wanted {
            fs::write(&self.mark, "")?;
        } else {
            fs::remove_file(&self.mark)?;
        }
        Ok(())
    }

    /// What the processes counted that have ended since the last call, together.
    ///
    /// # Errors
    /// Not as many as they must have been.
    pub(crate) fn take(&self, processes: usize) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        let mut found = 0;
        for entry in fs::read_dir(&self.folder)? {
            let file = entry?.path();
            let text = fs::read_to_string(&file)?;
            counts.instructions += total(&text).with_context(|| format!("{} has no total", file.display()))?;
            for ((caller, name), times) in calls(&text) {
                if name == TREE_PAGE {
                    counts.below_roots += if caller.is_some_and(|caller| DOWN.contains(&caller)) { times } else { 0.0 };
                    continue;
                }
                if name == PAGE {
                    counts.sqlite.entry(name.to_owned()).or_default().pages += times;
                } else if ENTRIES.contains(&name) {
                    counts.sqlite.entry(name.to_owned()).or_default().rows += times;
                }
            }
            found += 1;
            fs::remove_file(&file)?;
        }
        ensure!(found == processes, "{found} processes counted their instructions, not {processes}");
        // Without the pages the rest is not worth having: compilers may have dissolved anything.
        if !counts.sqlite.contains_key(PAGE) {
            counts.sqlite = ByRelation::new();
        }
        Ok(counts)
    }
}

/// Who called whom.
type Call = (Option<&'static str>, &'static str);

/// How often each of SQLite's functions was called, and by which of them, if by one. A name is written out where it first comes up,
/// and then stands for its number.
fn calls(text: &str) -> BTreeMap<Call, f64> {
    let mut names: HashMap<&str, Option<&'static str>> = HashMap::new();
    let mut calls = BTreeMap::new();
    let (mut caller, mut called) = (None, None);
    for line in text.lines() {
        let mut name_of = |function| {
            let (number, name) = str::split_once(function, ' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(number, known(name));
            }
            names.get(number).copied().flatten()
        };
        if let Some(function) = line.strip_prefix("cfn=") {
            called = name_of(function);
        } else if let Some(function) = line.strip_prefix("fn=") {
            caller = name_of(function);
        } else if let (Some(name), Some(rest)) = (called, line.strip_prefix("calls=")) {
            let times: f64 = rest.split(' ').next().and_then(|times| times.parse().ok()).unwrap_or_default();
            *calls.entry((caller, name)).or_default() += times;
        }
    }
    calls
}

/// Compilers add to the name of a function that they made a special form of, and callgrind to one that called itself.
fn known(name: &str) -> Option<&'static str> {
    let plain = name.split(['.', '\'']).next().unwrap_or_default();
    ENTRIES.into_iter().chain(DOWN).chain([PAGE, TREE_PAGE]).find(|known| *known == plain)
}

fn total(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_read() {
        assert_eq!(total("version: 1\nfn=(1)\n3 4\n\ntotals: 123456\n"), Some(123_456.0));
        assert_eq!(total("version: 1\n"), None);
    }

    #[test]
    fn calls_of_known_functions_are_counted_by_whoever_called_them() {
        let text = "fn=(1) main\n1 5\ncfn=(2) getPageNormal\ncalls=3 7\n2 30\ncfn=(3) memcpy\ncalls=90 1\n3 9\n\nfn=(2)\n7 30\n\n\
                    fn=(4) sqlite3BtreeNext.constprop.0\n8 1\ncfn=(2)\ncalls=4 7\n9 40\n\nfn=(5) step\ncfn=(4)\ncalls=6 8\n1 1\n";
        let next = ENTRIES[3];
        assert_eq!(calls(text), BTreeMap::from([((None, PAGE), 3.0), ((Some(next), PAGE), 4.0), ((None, next), 6.0)]));
        assert_eq!(calls("fn=(1) main\ncfn=(2) getPageNormalExtra\ncalls=3 7\n"), BTreeMap::new());
    }
}
