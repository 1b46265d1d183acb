//! The defaults, the example file that documents them, and settings that do not fit.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
};

use super::*;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.example.toml");

fn parse(toml: &str) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    tcc_service::config::load(Some(file.path()), "TCC_GATEWAY_TEST").map_err(|error| error.to_string())
}

fn bad_fields(config: &Config) -> Vec<String> {
    config.validate().map_or_else(|bad| bad.into_iter().map(|one| one.field).collect(), |()| Vec::new())
}

/// `section.field` for every field that the debug format of a configuration shows.
fn fields_of(config: &Config) -> BTreeSet<String> {
    let mut path: Vec<String> = Vec::new();
    let mut fields = BTreeSet::new();
    for line in format!("{config:#?}").lines().skip(1) {
        let text = line.trim();
        if matches!(text, "}" | "}," | ")" | "),") {
            path.pop();
        } else if let Some((name, value)) = text.split_once(": ") {
            if value.ends_with(['{', '(']) {
                path.push(name.to_owned());
            } else {
                fields.insert(path.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("."));
            }
        }
    }
    fields
}

/// `section.field` and value for every assignment in a TOML file as simple as the example.
fn assignments(toml: &str) -> BTreeMap<String, String> {
    let (mut section, mut fields) = (String::new(), BTreeMap::new());
    for line in toml.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((name, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            fields.insert(format!("{section}{name}"), value.trim_matches('"').to_owned());
        }
    }
    fields
}

#[tokio::test]
async fn the_defaults_fit_together() {
    let config = Config::default();
    assert_eq!(config.validate(), Ok(()));
    let names: Vec<_> = config.endpoints().unwrap().names().map(ToString::to_string).collect();
    assert_eq!(names, ["coupon", "inventory"]);
}

#[test]
fn the_example_file_has_every_setting_with_its_default() {
    let example: Config = tcc_service::config::load(Some(Path::new(EXAMPLE)), "TCC_GATEWAY_TEST").unwrap();
    assert_eq!(format!("{example:#?}"), format!("{:#?}", Config::default()));
    let fields = fields_of(&Config::default());
    assert!(fields.contains("coordinator.branches_max") && fields.contains("participants.coupon.endpoint"), "{fields:?}");
    let assigned: BTreeSet<_> = assignments(&std::fs::read_to_string(EXAMPLE).unwrap()).into_keys().collect();
    assert_eq!(assigned, fields);
}

#[test]
fn the_readmes_table_has_settings_with_their_defaults() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, table) = readme.split_once("<!-- configuration -->").unwrap();
    let (table, _) = table.split_once("<!-- /configuration -->").unwrap();
    let defaults = assignments(&std::fs::read_to_string(EXAMPLE).unwrap());
    let rows: Vec<Vec<&str>> =
        table.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').map(str::trim).collect()).collect();
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let (setting, default) = (row[1].trim_matches('`'), row[2].trim_matches('`'));
        assert_eq!(defaults.get(setting).map(String::as_str), Some(default), "{setting}");
    }
}

#[test]
fn every_setting_in_the_example_file_is_explained() {
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    let lines: Vec<&str> = example.lines().collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(" = ") && !line.starts_with('#')) {
        assert!(index > 0 && lines[index - 1].starts_with("# "), "{line}");
    }
}

#[test]
fn a_participant_of_ones_own_stands_beside_those_that_orders_need() {
    let config = parse("[participants.points]\nendpoint = 'http://points:1'").unwrap();
    let names: Vec<_> = config.participants.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["coupon", "inventory", "points"]);
    let moved = parse("[participants.inventory]\nendpoint = 'http://elsewhere:1'").unwrap();
    let inventory = &moved.participants[&ParticipantName::new("inventory").unwrap()];
    assert_eq!((inventory.endpoint.as_str(), inventory.calls_in_flight_max), ("http://elsewhere:1", 1_024));
}

#[tokio::test]
async fn each_bad_setting_is_named() {
    let with = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        bad_fields(&config)
    };
    assert_eq!(with(|config| config.log.database_url = "oracle://x".to_owned()), ["log.database_url"]);
    assert_eq!(with(|config| config.orders.database_url = "oracle://x".to_owned()), ["orders.database_url"]);
    // Several gateways may come to have the log, and only one of them would find the orders.
    assert_eq!(with(|config| config.log.database_url = "postgres://x".to_owned()), ["orders.database_url"]);
    let on_a_server = with(|config| {
        config.log.database_url = "postgres://db/tcc".to_owned();
        config.orders.database_url.clone_from(&config.log.database_url);
    });
    assert_eq!(on_a_server, [""; 0], "one database for both");
    let asks = with(|config| config.orders.participant.upkeep.sweep_batch_max = 257);
    assert_eq!(asks, ["orders.participant.upkeep.sweep_batch_max"]);
    assert_eq!(with(|config| config.orders.database_url = "orders".to_owned()), ["orders.database_url"]);
    assert_eq!(with(|config| config.orders.database_url.clone_from(&config.log.database_url)), ["orders.database_url"]);
    assert_eq!(with(|config| config.orders.participant.attempts_max = 0), ["orders.participant.attempts_max"]);
    assert_eq!(with(|config| config.coordinator.page_size = 0), ["coordinator.page_size"]);
    assert_eq!(with(|config| config.drain_ms = 600_001), ["drain_ms"]);
    let reserved = with(|config| {
        let endpoint = config.participants.values().next().unwrap().clone();
        config.participants.insert(ParticipantName::new("order").unwrap(), endpoint);
    });
    assert_eq!(reserved, ["participants.order"]);

    for endpoint in ["", "inventory:50061", "ftp://inventory", "http://"] {
        let mut config = Config::default();
        config.participants.values_mut().for_each(|one| one.endpoint = endpoint.to_owned());
        let bad = config.endpoints().map(|_| ()).unwrap_err();
        let fields: Vec<_> = bad.into_iter().map(|bad| bad.field).collect();
        assert_eq!(fields, ["participants.coupon", "participants.inventory"], "{endpoint:?}");
    }
}

#[test]
fn errors_of_the_file_name_the_field() {
    for (toml, name) in [
        ("colour = 'red'", "colour"),
        ("[orders]\ndatabase = 'x'", "database"),
        ("[participants.'a b']\nendpoint = 'http://x:1'", "participant"),
        ("[participants.points]\nport = 1", "port"),
        ("[log]\nname = 'a b'", "coordinator"),
        ("[coordinator]\nbranches_max = -1", "branches_max"),
    ] {
        let error = parse(toml).unwrap_err();
        assert!(error.contains(name), "{toml}: {error}");
    }
}

#[test]
fn no_password_is_ever_shown() {
    let url = || "postgres://tcc:secret@db/orders?password=secret".to_owned();
    let orders = OrdersConfig { database_url: url(), ..OrdersConfig::default() };
    let log = LogOptions { database_url: url(), ..LogOptions::default() };
    let shown = format!("{:?}", Config { orders, log, ..Config::default() });
    assert!(!shown.contains("secret") && shown.contains("postgres://db/orders"), "{shown}");
}
