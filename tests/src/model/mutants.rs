//! The test of the test: faults in a copy of the code that ships, each of which the model checker must find.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, ensure};
use comfy_table::{Table, presets};
use serde::Deserialize;

/// What the checker is built from.
const CRATES: [&str; 4] = ["tcc-core/types", "tcc-core/machine", "tcc-core/barrier", "tests/model"];

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

/// Builds and checks each, and fails if one survives that does harm, or one is found that is said to do none.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the source's folder")?;
    let text =
        fs::read_to_string(root.join("tests/model/mutants.toml")).context("the list of mutants: is the source still there?")?;
    let Mutants { mutant: mutants } = toml::from_str(&text)?;
    let copy = tempfile::tempdir()?;
    copy_source(root, copy.path())?;
    let target = root.join("target/mutants");
    let sound = check(copy.path(), &target)?;
    ensure!(sound == Fate::Survived, "without any mutant: {sound:?}");
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["mutant", "outcome"]);
    let (mut killed, mut wrong) = (0, 0);
    for mutant in &mutants {
        eprintln!("{}", mutant.name);
        let file = copy.path().join(&mutant.file);
        let sound = fs::read_to_string(&file).with_context(|| mutant.file.display().to_string())?;
        let occurs = sound.matches(&mutant.from).count();
        ensure!(occurs == 1, "{}: `from` occurs {occurs} times in {}", mutant.name, mutant.file.display());
        fs::write(&file, sound.replace(&mutant.from, &mutant.to))?;
        let fate = check(copy.path(), &target).with_context(|| mutant.name.clone())?;
        fs::write(&file, sound)?;
        killed += usize::from(matches!(fate, Fate::Killed(_)));
        let outcome = match (fate, &mutant.harmless) {
            (Fate::Killed(rule), None) => format!("killed: {rule}"),
            (Fate::Survived, Some(reason)) => format!("harmless: {reason}"),
            (Fate::Killed(rule), Some(_)) => {
                wrong += 1;
                format!("KILLED, but said to be harmless: {rule}")
            }
            (Fate::Survived, None) => {
                wrong += 1;
                "SURVIVED".to_owned()
            }
            (Fate::NotBuilt(said), _) => {
                wrong += 1;
                eprintln!("{said}");
                "NOT BUILT".to_owned()
            }
        };
        table.add_row([&mutant.name, &outcome]);
    }
    println!("{table}\n{killed} of {} mutants were killed", mutants.len());
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The crates, in a workspace of their own.
fn copy_source(root: &Path, copy: &Path) -> anyhow::Result<()> {
    for part in CRATES {
        copy_folder(&root.join(part), &copy.join(part))?;
    }
    fs::copy(root.join("Cargo.lock"), copy.join("Cargo.lock"))?;
    let mut manifest: toml::Table = toml::from_str(&fs::read_to_string(root.join("Cargo.toml"))?)?;
    let workspace = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut).context("a workspace")?;
    workspace.insert("members".to_owned(), CRATES.map(toml::Value::from).to_vec().into());
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

fn check(copy: &Path, target: &Path) -> anyhow::Result<Fate> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let environment: BTreeMap<_, _> = [("CARGO_TARGET_DIR", target.as_os_str())].into();
    let ran = Command::new(cargo)
        .args(["run", "--quiet", "--offline", "--package", "tcc-model"])
        .current_dir(copy)
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .context("cargo does not start")?;
    let said = String::from_utf8_lossy(&ran.stdout);
    match ran.status.code() {
        Some(0) => Ok(Fate::Survived),
        Some(code) if code == i32::from(tcc_model::BROKEN) => {
            Ok(Fate::Killed(said.trim().trim_start_matches("BROKEN ").to_owned()))
        }
        _ => Ok(Fate::NotBuilt(format!("{}\n{said}{}", ran.status, String::from_utf8_lossy(&ran.stderr)))),
    }
}
