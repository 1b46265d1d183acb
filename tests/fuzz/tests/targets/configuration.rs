//! Configuration files: read whole or not at all, every setting that does not fit is named, and neither an error nor a printed
//! configuration tells a password.

use std::{fmt::Debug, io::Write};

use serde::de::DeserializeOwned;
use tcc_fuzz::{Outcome, Shape, Target};
use tcc_types::Invalid;
use tempfile::NamedTempFile;

use super::samples::SECRET;

/// Nothing in the environment begins with it.
const NO_PREFIX: &str = "TCC_FUZZ_NOTHING";

/// Values of settings.
const WORDS: [&str; 22] = [
    "'postgres://tcc:s3cr3t@db:5432/log'",
    "\"mysql://tcc:s3cr3t@db/log?ssl-mode=required\"",
    "'sqlite://data/a.db'",
    "'oracle://tcc:s3cr3t@db/x'",
    "'http://h:1'",
    "['http://h:1', 'postgres://tcc:s3cr3t@db/x']",
    "\n[log]",
    "\n[coordinator]",
    "\n[participants.order]\nendpoint = 'http://h:1'",
    "\n['postgres://tcc:s3cr3t@db/x']",
    "9223372036854775807",
    "18446744073709551615",
    "4294967295",
    "-1",
    "0",
    "1",
    "1000",
    "1.5",
    "true",
    "''",
    "[]",
    "{ a = 1 }",
];

/// What any of the configurations has.
trait Servers: DeserializeOwned + Debug {
    /// Sets the URL of each of its databases.
    fn move_to(&mut self, url: &str);
}

impl Servers for tcc_gateway::Config {
    fn move_to(&mut self, url: &str) {
        url.clone_into(&mut self.log.database_url);
        url.clone_into(&mut self.orders.database_url);
    }
}

impl Servers for tcc_inventory::Config {
    fn move_to(&mut self, url: &str) {
        url.clone_into(&mut self.database_url);
    }
}

impl Servers for tcc_coupon::Config {
    fn move_to(&mut self, url: &str) {
        url.clone_into(&mut self.database_url);
    }
}

/// Reads a file that has passwords in its addresses, wherever these stand: they are told neither by an error nor by what is printed of a
/// configuration.
fn read<C: Servers>(file: &mut NamedTempFile, input: &[u8], validate: impl Fn(&C) -> Result<(), Vec<Invalid>>) -> Outcome {
    let password = format!(":{SECRET}@");
    file.as_file().set_len(0).unwrap();
    std::io::Seek::rewind(file.as_file_mut()).unwrap();
    file.write_all(input).unwrap();
    match tcc_service::config::load::<C>(Some(file.path()), NO_PREFIX) {
        Ok(mut config) => {
            let checked = validate(&config);
            config.move_to("postgres://tcc:p4ssw0rd@db:5432/name?password=p4ssw0rd");
            let shown = format!("{config:?}");
            assert!(!shown.contains("p4ssw0rd") && shown.contains("postgres://db:5432/name"), "{shown}");
            match checked {
                Ok(()) => "accepted".into(),
                Err(bad) => {
                    let databases = bad.iter().filter(|bad| bad.field.ends_with("database_url"));
                    assert!(databases.into_iter().all(|bad| !bad.problem.contains(SECRET)), "{bad:?}");
                    assert!(bad.iter().all(|bad| !bad.field.is_empty() && !bad.problem.is_empty()), "{bad:?}");
                    let section = bad[0].field.split('.').next().unwrap_or_default().to_owned();
                    format!("refused setting of {section}").into()
                }
            }
        }
        Err(error) => {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(&password), "{shown}");
            "refused file".into()
        }
    }
}

/// What the server checks before it opens anything.
fn participant(options: &tcc_participant::Options) -> Result<(), Vec<Invalid>> {
    options.validate().map_err(|bad| vec![bad.within("participant")])
}

fn sections() -> Vec<Vec<u8>> {
    let example = include_str!("../../../../gateway/gateway.example.toml");
    // Without the comments, so that changes hit settings.
    let settings: String = example.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    let server = "drain_ms = 9\n[log]\ndatabase_url = \"postgres://tcc:s3cr3t@db:5432/log\"\nname = \"main\"\n\
                  [orders]\ndatabase_url = \"postgres://tcc:s3cr3t@db:5432/orders\"\n[coordinator]\ntry_for_ms = 1000\n";
    vec![settings.into_bytes(), server.as_bytes().to_vec()]
}

#[test]
fn gateway_configuration() {
    let runtime = super::services::runtime();
    let mut file = NamedTempFile::new().unwrap();
    let meets =
        ["accepted", "refused file", "refused setting of coordinator", "refused setting of orders", "refused setting of log"];
    let target = Target {
        name: "gateway_configuration",
        shape: Shape::Lines,
        words: &WORDS,
        seeds: sections(),
        rounds: 1_200,
        meets: &meets,
    };
    target.run(|input| {
        read(&mut file, input, |config: &tcc_gateway::Config| {
            config.validate()?;
            // What is accepted can be counted with.
            let policy = config.coordinator.policy();
            assert!(policy.retry_base <= policy.retry_cap);
            let _runtime = runtime.enter();
            config.endpoints().map(drop)
        })
    });
}

#[test]
fn participant_configurations() {
    let runtime = super::services::runtime();
    let mut file = NamedTempFile::new().unwrap();
    let seed = "listen = '127.0.0.1:0'\ndatabase_url = 'mysql://tcc:s3cr3t@db/inventory'\nadmin_calls_in_flight_max = 3\n\
                [participant]\noperations_in_flight_max = 16\ntries_in_flight_max = 8\n[participant.upkeep]\nretention_ms = 600000\n\
                [coordinators.main]\nendpoints = ['http://127.0.0.1:50051']\nask_timeout_ms = 100\n";
    let seeds = vec![seed.as_bytes().to_vec()];
    let meets = ["accepted", "refused file", "refused setting of participant", "refused setting of coordinators"];
    let target =
        Target { name: "participant_configurations", shape: Shape::Lines, words: &WORDS, seeds, rounds: 1_000, meets: &meets };
    target.run(|input| {
        let _runtime = runtime.enter();
        let coupon = read(&mut file, input, |config: &tcc_coupon::Config| {
            participant(&config.participant)?;
            tcc_participant::GrpcOutcomes::new(&config.coordinators).map(drop)
        });
        let inventory = read(&mut file, input, |config: &tcc_inventory::Config| {
            participant(&config.participant)?;
            tcc_participant::GrpcOutcomes::new(&config.coordinators).map(drop)
        });
        assert_eq!(coupon, inventory, "their settings are the same");
        inventory
    });
}
