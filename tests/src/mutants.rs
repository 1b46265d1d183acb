//! The test of the tests: faults in a copy of the code that ships, one at a time, each of which a checker must find. What is checked, and how,
//! is the [`Subject`]'s: the model checker, or the simulation.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, anyhow, ensure};
use comfy_table::{Table, presets};
use serde::Deserialize;

/// Mutants that are built and checked at the same time, at most: each needs a folder of its own for what is built.
const WORKERS_MAX: usize = 4;

/// A checker, and the faults that it must find.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    /// The list of faults, in the source.
    pub(crate) list: &'static str,
    /// What the checker is built from: folders of crates.
    pub(crate) crates: &'static [&'static str],
    /// The crate whose binary is the checker.
    pub(crate) package: &'static str,
    /// How cargo is to build it.
    pub(crate) build: &'static [&'static str],
    /// The same where only one part is checked, which is not worth the time that optimising takes.
    pub(crate) build_quickly: &'static [&'static str],
    /// What the checker itself is told.
    pub(crate) arguments: &'static [&'static str],
    /// Its exit status when a rule is broken.
    pub(crate) broken: u8,
    /// The line in which it names the rule, and what stands before that.
    pub(crate) names_rule: &'static str,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutants {
    mutant: Vec<Mutant>,
}

/// One fault.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    file: PathBuf,
    /// Occurs exactly once in the file.
    from: String,
    to: String,
    /// The configuration that is to find it: it is explored before the others.
    first: Option<String>,
    /// Why it need not be found.
    harmless: Option<String>,
}

/// What the checker made of a mutant.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// By this rule, in this configuration.
    Killed(String),
    Survived,
    /// The list is at fault.
    NotBuilt(String),
}

/// Builds and checks those whose names contain `only`, if given, else all; fails if one survives that does harm, or one is found that is said
/// to do none.
pub(crate) fn run(subject: &Subject, only: &[String]) -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the source's folder")?;
    let text = fs::read_to_string(root.join(subject.list)).context("the list of mutants: is the source still there?")?;
    let Mutants { mutant: mut mutants } = toml::from_str(&text)?;
    mutants.retain(|mutant| only.is_empty() || only.iter().any(|part| mutant.name.contains(part)));
    let fates = fates(subject, root, &mutants)?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["mutant", "outcome"]);
    let (mut killed, mut wrong) = (0, 0);
    for (mutant, fate) in mutants.iter().zip(fates) {
        killed += usize::from(matches!(fate, Fate::Killed(_)));
        let (outcome, is_right) = match (fate, &mutant.harmless) {
            (Fate::Killed(rule), None) => (format!("killed: {rule}"), true),
            (Fate::Survived, Some(reason)) => (format!("harmless: {reason}"), true),
            (Fate::Killed(rule), Some(_)) => (format!("KILLED, but said to be harmless: {rule}"), false),
            (Fate::Survived, None) => ("SURVIVED".to_owned(), false),
            (Fate::NotBuilt(said), _) => {
                eprintln!("{}: {said}", mutant.name);
                ("NOT BUILT".to_owned(), false)
            }
        };
        wrong += usize::from(!is_right);
        table.add_row([&mutant.name, &outcome]);
    }
    println!("{table}\n{killed} of {} mutants were killed", mutants.len());
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What becomes of each, in their order; the code without any of them is checked first.
fn fates(subject: &Subject, root: &Path, mutants: &[Mutant]) -> anyhow::Result<Vec<Fate>> {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = processors.min(WORKERS_MAX).min(mutants.len().max(1));
    let next = AtomicUsize::new(0);
    let fates = Mutex::new(Vec::new());
    let work = |worker: usize| -> anyhow::Result<()> {
        let copy = tempfile::tempdir()?;
        copy_source(subject, root, copy.path())?;
        let target = target(root).join(format!("mutants-{worker}"));
        if worker == 0 {
            let sound = check(subject, copy.path(), &target, None)?;
            ensure!(sound == Fate::Survived, "without any mutant: {sound:?}");
        }
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = mutants.get(index) else { return Ok(()) };
            let fate = fate(subject, mutant, copy.path(), &target).with_context(|| mutant.name.clone())?;
            eprintln!("{}: {}", mutant.name, if matches!(fate, Fate::Killed(_)) { "killed" } else { "not killed" });
            fates.lock().unwrap_or_else(PoisonError::into_inner).push((index, fate));
        }
    };
    let work = &work;
    thread::scope(|scope| {
        let working: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        working.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked"))))
    })?;
    let mut fates = fates.into_inner().unwrap_or_else(PoisonError::into_inner);
    fates.sort_by_key(|(index, _)| *index);
    Ok(fates.into_iter().map(|(_, fate)| fate).collect())
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

fn fate(subject: &Subject, mutant: &Mutant, copy: &Path, target: &Path) -> anyhow::Result<Fate> {
    let file = copy.join(&mutant.file);
    let sound = fs::read_to_string(&file).with_context(|| mutant.file.display().to_string())?;
    let occurs = sound.matches(&mutant.from).count();
    ensure!(occurs == 1, "`from` occurs {occurs} times in {}", mutant.file.display());
    fs::write(&file, sound.replace(&mutant.from, &mutant.to))?;
    let quickly = mutant.first.as_deref().map(|first| check(subject, copy, target, Some(first))).transpose();
    let fate = match quickly {
        Ok(Some(Fate::Killed(rule))) => Ok(Fate::Killed(rule)),
        Ok(_) => check(subject, copy, target, None),
        Err(error) => Err(error),
    };
    fs::write(&file, sound)?;
    fate
}

/// The crates, in a workspace of their own.
fn copy_source(subject: &Subject, root: &Path, copy: &Path) -> anyhow::Result<()> {
    for part in subject.crates {
        copy_folder(&root.join(part), &copy.join(part))?;
    }
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock"))?;
    let mut manifest: toml::Table = toml::from_str(&fs::read_to_string(root.join("Cargo.toml"))?)?;
    let workspace = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut).context("a workspace")?;
    workspace
        .insert("members".to_owned(), subject.crates.iter().map(|part| toml::Value::from(*part)).collect::<Vec<_>>().into());
    workspace.remove("default-members");
    fs::write(copy.join("Cargo.toml"), toml::to_string(&manifest)?)?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// Builds and checks everything, or `only` one part of it.
fn check(subject: &Subject, copy: &Path, target: &Path, only: Option<&str>) -> anyhow::Result<Fate> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ran = Command::new(cargo)
        .args(["run", "--quiet", "--offline", "--package", subject.package])
        .args(if only.is_some() { subject.build_quickly } else { subject.build })
        .arg("--")
        .args(subject.arguments)
        .args(only.iter().flat_map(|name| ["--only", name]))
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .output()
        .context("cargo does not start")?;
    let said = String::from_utf8_lossy(&ran.stdout);
    match ran.status.code() {
        Some(0) => Ok(Fate::Survived),
        Some(code) if code == i32::from(subject.broken) => {
            let rule = said.lines().find_map(|line| line.strip_prefix(subject.names_rule));
            Ok(Fate::Killed(rule.unwrap_or("a rule").to_owned()))
        }
        _ => Ok(Fate::NotBuilt(format!("{}\n{said}{}", ran.status, String::from_utf8_lossy(&ran.stderr)))),
    }
}
