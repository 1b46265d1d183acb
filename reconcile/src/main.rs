//! The command `tcc-reconcile`. Everything is in the library; this reads its options, runs it, and prints what it found.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tcc_reconcile::{Config, ENV_PREFIX, Named, Progress, Reconciler, Report, Url};
use tcc_types::{LogName, ParticipantName};

/// Compares the coordinator's log with the participants' branch rows, and frozen columns with tried rows, while the system runs.
///
/// Reads only. Exits with 0 if all agree, 1 if something disagrees and stands over the grace, 2 if it could not look at everything.
#[derive(Debug, Parser)]
#[command(name = "tcc-reconcile", version)]
struct Args {
    /// A TOML file with the settings below (`grace_ms = 5000`); the environment (`TCC_RECONCILE__GRACE_MS=5000`) overrides it, and
    /// these options override both.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The log's database: `sqlite:`, `postgres:` or `mysql:`.
    #[arg(long, value_name = "URL")]
    log: Option<String>,
    /// What the log must be called.
    #[arg(long, value_name = "NAME")]
    log_name: Option<LogName>,
    /// The database of a participant on the SDK, by the name under which the coordinator calls it; may be repeated.
    #[arg(long, value_name = "NAME=URL", value_parser = name_and_url)]
    participant: Vec<(ParticipantName, Url)>,
    /// The gateway's orders; compares their rows, too.
    #[arg(long, value_name = "[NAME=]URL")]
    orders: Option<Named>,
    /// The participant inventory; compares its stock, too.
    #[arg(long, value_name = "[NAME=]URL")]
    inventory: Option<Named>,
    /// The participant coupon; compares its coupons, too.
    #[arg(long, value_name = "[NAME=]URL")]
    coupon: Option<Named>,
    /// For how long a disagreement must stand, and how late something may be. Default: 10,000.
    #[arg(long, value_name = "MS")]
    grace_ms: Option<u64>,
    /// The coordinator's `retention_ms`. Default: a week.
    #[arg(long, value_name = "MS")]
    log_retention_ms: Option<u64>,
    /// The shortest `retention_ms` of a participant. Default: a week.
    #[arg(long, value_name = "MS")]
    participant_retention_ms: Option<u64>,
    /// Also compares what is sold with the confirmed rows; reads the whole history of the inventory in one snapshot.
    #[arg(long)]
    sold: bool,
    /// Exits with 1 also for what is overdue: transactions and rows that nobody goes on with, and stuck branches.
    #[arg(long)]
    strict: bool,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each finding, and what to do.
    Text,
    /// One object.
    Json,
}

fn name_and_url(text: &str) -> Result<(ParticipantName, Url), String> {
    let (name, url) = text.split_once('=').ok_or("must be NAME=URL")?;
    Ok((ParticipantName::new(name).map_err(|bad| bad.problem)?, Url(url.to_owned())))
}

impl Args {
    fn config(self) -> anyhow::Result<Config> {
        let mut config: Config = tcc_service::config::load(self.config.as_deref(), ENV_PREFIX)?;
        config.participants.extend(self.participant);
        config.log = self.log.map_or(config.log, Url);
        config.log_name = self.log_name.or(config.log_name);
        config.orders = self.orders.or(config.orders);
        config.inventory = self.inventory.or(config.inventory);
        config.coupon = self.coupon.or(config.coupon);
        config.grace_ms = self.grace_ms.unwrap_or(config.grace_ms);
        config.log_retention_ms = self.log_retention_ms.unwrap_or(config.log_retention_ms);
        config.participant_retention_ms = self.participant_retention_ms.unwrap_or(config.participant_retention_ms);
        config.sold |= self.sold;
        config.strict |= self.strict;
        Ok(config)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let format = args.format;
    match run(args).await {
        Ok((report, strict)) => {
            match format {
                Format::Text => println!("{report}"),
                Format::Json => match serde_json::to_string_pretty(&report) {
                    Ok(text) => println!("{text}"),
                    Err(error) => return cannot_look(&error.into()),
                },
            }
            report.outcome(strict).exit_code()
        }
        Err(error) => cannot_look(&error),
    }
}

fn cannot_look(error: &anyhow::Error) -> ExitCode {
    eprintln!("could not look: {error:#}");
    ExitCode::from(2)
}

async fn run(args: Args) -> anyhow::Result<(Report, bool)> {
    let config = args.config()?;
    let strict = config.strict;
    let mut reconciler = Reconciler::open(config).await?;
    let bar = Bar::new();
    let report = reconciler.run(&|progress| bar.show(progress)).await;
    bar.finish();
    Ok((report?, strict))
}

/// How far it is, on a terminal.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:40} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(1).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        }))
    }

    fn show(&self, progress: Progress) {
        let Some(bar) = &self.0 else { return };
        match progress {
            Progress::Walking { seen, first, at, last } => {
                let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                bar.set_length(millis(first.until(last)).max(1));
                bar.set_position(millis(first.until(at)));
                bar.set_message(format!("{seen} transactions"));
            }
            Progress::Columns => bar.set_message("comparing columns"),
            Progress::LookingAgain { left } => bar.set_message(format!("looking again at {left} transactions")),
            _ => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_override_what_the_file_says() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        let folder = std::env::temp_dir();
        let file = folder.join(format!("tcc-reconcile-{}.toml", std::process::id()));
        std::fs::write(
            &file,
            "log = 'sqlite://a'\ninventory = 'stock=sqlite://b'\ngrace_ms = 7\n[participants]\npoints = 'sqlite://c'\n",
        )
        .unwrap();
        let path = file.display().to_string();
        let args =
            ["tcc-reconcile", "--config", &path, "--log", "sqlite://z", "--participant", "more=sqlite://d?x=y", "--strict"];
        let config = Args::parse_from(args).config().unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!((config.log, config.grace_ms, config.strict, config.sold), (Url("sqlite://z".to_owned()), 7, true, false));
        assert_eq!(config.inventory.unwrap().name.unwrap().as_str(), "stock");
        let urls: Vec<_> = config.participants.iter().map(|(name, url)| (name.as_str(), url.0.as_str())).collect();
        assert_eq!(urls, [("more", "sqlite://d?x=y"), ("points", "sqlite://c")]);
    }
}
