//! `cargo run -p tcc-servers -- postgres`: a private server to play with, until the standard input ends or Ctrl-C.

use std::{io::Read, process::ExitCode};

use tcc_servers::{Kind, Server};

fn main() -> ExitCode {
    let kind = match std::env::args().nth(1).as_deref() {
        Some("postgres") => Kind::Postgres,
        Some("mysql") => Kind::Mysql,
        _ => {
            eprintln!("usage: tcc-servers postgres|mysql");
            return ExitCode::FAILURE;
        }
    };
    match hold(kind) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn hold(kind: Kind) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    let url = server.try_create_database()?;
    println!("url {url}");
    println!("pid {}", server.pid().unwrap_or_default());
    println!("data {}", server.data_folder().display());
    let mut ignored = [0_u8; 256];
    while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
    Ok(())
}
