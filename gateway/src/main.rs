//! The binary: reads the command line and calls the library.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;
use std::{fs, io};

use clap::Parser;
use gateway::cli::{Cli, Command, Remote, XdpCommand};
use gateway::config::{self, Overrides};
use gateway::explain::{Question, explain};
use gateway::policy::api_key;
use gateway::tls::ClientCertificate;
use gateway::{control, doctor, remote, telemetry, top, xdp};

fn main() -> ExitCode {
    let command = Cli::parse().command().unwrap_or_else(|error| error.exit());
    execute(command).map_or_else(ExitCode::from, |()| ExitCode::SUCCESS)
}

fn execute(command: Command) -> Result<(), u8> {
    match command {
        Command::Run(run) => {
            telemetry::log::start(run.log_level.as_deref()).map_err(|error| fail(2, error))?;
            let (file, flags, cpus) = (run.config.clone(), run.overrides(), control::usable_cpus());
            let load = move || config::load(file.as_deref(), &flags, &cpus);
            let config = load().map_err(|error| fail(error.exit_code(), error))?;
            control::run(config, Box::new(load))
                .map_err(|error| fail(1, format!("gateway: {error}")))?;
        }
        Command::Check { file } => {
            let config = config::load(Some(&file), &Overrides::default(), &control::usable_cpus())
                .map_err(|error| fail(error.exit_code(), error))?;
            for warning in config::placed(&file, config.warnings(SystemTime::now())) {
                eprintln!("{warning}");
            }
            println!("{}: ok", file.display());
        }
        Command::Explain(asked) => {
            let load =
                config::load(Some(&asked.config), &Overrides::default(), &control::usable_cpus());
            let config = load.map_err(|error| fail(error.exit_code(), error))?;
            let (method, url, fields) = (asked.method, asked.url, asked.fields);
            let certificate = asked.client_cert.as_deref().map(ClientCertificate::read);
            let certificate = certificate.transpose().map_err(|error| fail(2, error))?;
            let question = Question { method, url, fields, source: asked.from, certificate };
            print!("{}", explain(&config, &question).map_err(|error| fail(2, error))?);
        }
        Command::Ban(asked) => {
            let reason = asked.reason.as_deref();
            print!(
                "{}",
                remote::ban(&asked.remote.socket, &asked.networks, asked.lasts, reason)
                    .map_err(|error| fail(1, error))?
            );
        }
        Command::Unban { networks, remote: Remote { socket } } => {
            print!("{}", remote::unban(&socket, &networks).map_err(|error| fail(1, error))?);
        }
        Command::Bans { json, import, remote: Remote { socket } } => {
            let said = match import {
                None => remote::bans(&socket, json),
                Some(file) => read(&file)
                    .map_err(|error| format!("{}: {error}", file.display()))
                    .and_then(|text| remote::import(&socket, &text)),
            };
            print!("{}", said.map_err(|error| fail(1, error))?);
        }
        Command::Top { once: true, json, sort, remote: Remote { socket } } => {
            print!("{}", top::once(&socket, sort, json).map_err(|error| fail(1, error))?);
        }
        Command::Top { once: false, json: _, sort, remote: Remote { socket } } => {
            top::live(&socket, sort).map_err(|error| fail(1, error))?;
        }
        Command::Doctor { config, interface, json } => {
            let report = doctor::examine(config.as_deref(), &interface);
            let json = json.then(|| report.json()).transpose().map_err(|error| fail(1, error))?;
            print!("{}", json.unwrap_or_else(|| report.text()));
            if report.has_failed() {
                return Err(1);
            }
        }
        Command::HashKey { name, stdin } => {
            let key = match stdin {
                true => read(Path::new("-")).map_err(|error| fail(1, error))?.trim_end().to_owned(),
                false => api_key::make().map_err(|error| fail(1, error))?,
            };
            let line = api_key::line(&name, &key).map_err(|error| fail(2, error))?;
            if !stdin {
                eprintln!("the key of {name}, which is kept nowhere: {key}");
            }
            println!("{line}");
        }
        Command::Xdp(XdpCommand::Status { json, remote: Remote { socket } }) => {
            print!("{}", remote::xdp_status(&socket, json).map_err(|error| fail(1, error))?);
        }
        Command::Xdp(XdpCommand::Detach { pin }) => {
            let links = xdp::detach(&pin)
                .map_err(|error| fail(1, format!("{}: {error}", pin.display())))?;
            println!("{}: removed, with the program on {links} interfaces", pin.display());
        }
        Command::Version => println!("gateway {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(())
}

/// A file, or standard input.
fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) }
}

fn fail(code: u8, error: impl Display) -> u8 {
    eprintln!("{error}");
    code
}
