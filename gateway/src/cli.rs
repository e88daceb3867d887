//! What the command line may say. What it means is decided in `main` and in `config`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{self, ADMIN_SOCKET, Overrides};
use crate::top::Sort;
use crate::xdp;

const EXAMPLES: &str = "\
Examples:
  gateway --listen 127.0.0.1:8080 --upstream 127.0.0.1:9000
  gateway run --config gateway.toml
  gateway run --config gateway.toml --xdp-interface eth0 --conn-rate 50/s --xdp-enforce
  gateway check gateway.toml
  gateway explain GET https://api.example.com/orders/7 --config gateway.toml
  gateway top --sort drops
  gateway ban 203.0.113.7 --for 10m
  gateway hash-key alice >>keys.txt

Exit codes: 0 success, 1 failure, 2 wrong usage or configuration.";

/// An API gateway: one proxy thread per core, connection limits in the kernel.
///
/// Without a command it runs, as `gateway run` does.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway until SIGTERM or SIGINT.
    #[command(after_help = EXAMPLES)]
    Run(Box<Run>),
    /// Find every mistake in a configuration file without running it.
    Check {
        /// The file to check.
        file: PathBuf,
    },
    /// Say what would become of a request, and why, without sending it.
    Explain(Explain),
    /// Ban addresses or networks: the kernel drops their new connections.
    Ban(BanArgs),
    /// End bans.
    Unban {
        /// Addresses or networks, as `gateway bans` shows them
        #[arg(required = true, value_name = "IP|CIDR")]
        networks: Vec<String>,
        /// Whom to ask.
        #[command(flatten)]
        remote: Remote,
    },
    /// Say who is banned.
    Bans {
        /// As JSON, which --import reads
        #[arg(long)]
        json: bool,
        /// Ban what such a file names; "-" is standard input
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        import: Option<PathBuf>,
        /// Whom to ask.
        #[command(flatten)]
        remote: Remote,
    },
    /// Show who connects, asks and is dropped, live.
    Top {
        /// Show it once, of one second, and end
        #[arg(long)]
        once: bool,
        /// As JSON
        #[arg(long, requires = "once")]
        json: bool,
        /// What is on top
        #[arg(long, value_name = "COLUMN", value_enum, default_value_t = Sort::Requests)]
        sort: Sort,
        /// Whom to ask.
        #[command(flatten)]
        remote: Remote,
    },
    /// Find out what works on this machine, what does not, and what to do about it.
    Doctor {
        /// Look at what this configuration asks for
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Look at this interface; repeatable [default: those with a default route]
        #[arg(long, value_name = "IF")]
        interface: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make an API key: the line for a file of keys on standard output, the key itself on standard error.
    HashKey {
        /// Whose it is
        name: String,
        /// Take the key from standard input instead
        #[arg(long)]
        stdin: bool,
    },
    /// The kernel program.
    #[command(subcommand)]
    Xdp(XdpCommand),
    /// Print the version.
    Version,
}

/// What about the kernel program.
#[derive(Debug, Subcommand)]
pub enum XdpCommand {
    /// Say where it runs and what it has decided.
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Whom to ask.
        #[command(flatten)]
        remote: Remote,
    },
    /// Remove what a gateway has left in the kernel (xdp.on_exit = "keep"): from then on nothing is
    /// limited and nobody is banned. What one keeps that runs is left alone: end it first.
    Detach {
        /// Where it is kept, as in xdp.pin
        #[arg(long, value_name = "FOLDER", default_value = xdp::PIN_FOLDER)]
        pin: PathBuf,
    },
}

/// Which running gateway is asked.
#[derive(Args, Debug)]
pub struct Remote {
    /// Its admin socket
    #[arg(long, value_name = "PATH", default_value = ADMIN_SOCKET)]
    pub socket: PathBuf,
}

/// A ban by hand.
#[derive(Args, Debug)]
pub struct BanArgs {
    /// Addresses or networks
    #[arg(required = true, value_name = "IP|CIDR")]
    pub networks: Vec<String>,

    /// For how long, up to 365d
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = ban_length)]
    pub lasts: Duration,

    /// What for
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// Whom to ask.
    #[command(flatten)]
    pub remote: Remote,
}

/// A request to explain.
#[derive(Args, Debug)]
pub struct Explain {
    /// Its method, such as GET
    pub method: String,

    /// Where it goes: a URL with scheme and host
    pub url: String,

    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// A field of its head; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub fields: Vec<String>,

    /// Where it comes from
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub from: IpAddr,

    /// The certificate its client shows (PEM), taken for verified
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
}

/// Flags of `gateway run`; each wins over the file.
#[derive(Args, Debug)]
pub struct Run {
    /// Configuration file (TOML); flags win over what it says
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How much to say on standard error: error, warn, info, debug, trace, off, or by module
    /// such as "info,gateway::xdp=debug" [default: $GATEWAY_LOG, else info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Address and port to accept clients on; repeatable, replaces the file's listeners
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    listen: Vec<SocketAddr>,

    /// Where requests go; repeat it to share them between several endpoints
    #[arg(long, value_name = "HOST:PORT")]
    upstream: Vec<String>,

    /// CPUs to run on, one worker each: "all", a number of CPUs, or a list such as "0-3,6"
    /// [default: all]
    #[arg(long, value_name = "CPUS")]
    cores: Option<String>,

    /// What workers wait by: io_uring, epoll, or auto: io_uring where it can be used [default: auto]
    #[arg(long, value_name = "DRIVER", value_parser = ["auto", "io_uring", "epoll"])]
    driver: Option<String>,

    /// Where /metrics, /healthz and /readyz are served, or "off" [default: 127.0.0.1:9901]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<String>,

    /// Write a line per request to standard output [default: what the file says]
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "combined", "off"])]
    access_log: Option<String>,

    /// Limit new connections per source in the kernel, on this interface; repeatable. Without
    /// --xdp-enforce it only counts. Sets xdp.required: the gateway does not start without it.
    /// Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON
    #[arg(long, value_name = "IF", help_heading = "Kernel limits (XDP)")]
    xdp_interface: Vec<String>,

    /// Where the kernel program runs: in the driver (native), in the network stack (generic:
    /// any interface, slower), or auto: native if the driver can [default: native]
    #[arg(
        long,
        value_name = "MODE",
        help_heading = "Kernel limits (XDP)",
        value_parser = xdp_mode()
    )]
    xdp_mode: Option<xdp::Mode>,

    /// Drop what is over the limit; without this it is only counted
    #[arg(long, help_heading = "Kernel limits (XDP)")]
    xdp_enforce: bool,

    /// New connections a second from one source, such as 50 or 50/s [default: 50/s]
    #[arg(long, value_name = "RATE", help_heading = "Kernel limits (XDP)")]
    conn_rate: Option<String>,

    /// Connections a source may open at once after a pause [default: 200]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Kernel limits (XDP)",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    conn_burst: Option<u32>,

    /// Connections a source may have open at the same time [default: 100]
    #[arg(
        long,
        value_name = "N",
        help_heading = "Kernel limits (XDP)",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    conn_max: Option<u32>,

    /// Load this BPF object in place of the built-in one
    #[arg(long, value_name = "FILE", help_heading = "Kernel limits (XDP)")]
    xdp_object: Option<PathBuf>,
}

impl Cli {
    /// What is to be done.
    ///
    /// # Errors
    /// When it would be to run, and nothing says where to listen or what to serve.
    pub fn command(self) -> Result<Command, clap::Error> {
        let command = self.command.unwrap_or_else(|| Command::Run(Box::new(self.run)));
        if let Command::Run(run) = &command
            && run.config.is_none()
            && (run.listen.is_empty() || run.upstream.is_empty())
        {
            let mut usage = <Self as CommandFactory>::command();
            return Err(usage.error(ErrorKind::MissingRequiredArgument, NOTHING));
        }
        Ok(command)
    }
}

const NOTHING: &str = "nothing to serve; give a file or the two ends:
  gateway run --config FILE
  gateway run --listen IP:PORT --upstream HOST:PORT";

impl Run {
    /// What wins over the file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            cores: self.cores.clone(),
            driver: self.driver.clone(),
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            admin: self.admin.clone(),
            access_log: self.access_log.clone(),
            xdp_interfaces: self.xdp_interface.clone(),
            xdp_mode: self.xdp_mode,
            xdp_enforce: self.xdp_enforce,
            conn_rate: self.conn_rate.clone(),
            conn_burst: self.conn_burst,
            conn_max: self.conn_max,
            xdp_object: self.xdp_object.clone(),
        }
    }
}

fn address(value: &str) -> Result<SocketAddr, String> {
    value
        .parse()
        .map_err(|_| "expected an IP address and a port, such as 0.0.0.0:8080 or [::]:8080".into())
}

fn ban_length(value: &str) -> Result<Duration, String> {
    config::ban_length(value)
}

fn xdp_mode() -> impl TypedValueParser<Value = xdp::Mode> {
    PossibleValuesParser::new(["native", "generic", "auto"]).map(|mode| match mode.as_str() {
        "native" => xdp::Mode::Native,
        "generic" => xdp::Mode::Generic,
        _ => xdp::Mode::Auto,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).and_then(Cli::command)
    }

    fn run(line: &str) -> Run {
        match parse(line) {
            Ok(Command::Run(run)) => *run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn run_is_what_happens_without_a_command() {
        for line in ["gateway --config a.toml", "gateway run --config a.toml"] {
            assert_eq!(run(line).config, Some(PathBuf::from("a.toml")));
        }
    }

    #[test]
    fn every_flag_becomes_an_override() {
        let run = run("gateway --listen 127.0.0.1:80 --listen [::1]:80 --upstream a:1 \
                       --upstream b:2 --cores 0-1 --driver epoll --admin off --access-log json \
                       --xdp-interface eth0 --xdp-interface eth1 --xdp-mode generic --xdp-enforce \
                       --conn-rate 50/s --conn-burst 200 --conn-max 9 --xdp-object o");
        assert_eq!(
            run.overrides(),
            Overrides {
                cores: Some("0-1".into()),
                driver: Some("epoll".into()),
                listen: vec!["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()],
                upstream: vec!["a:1".into(), "b:2".into()],
                admin: Some("off".into()),
                access_log: Some("json".into()),
                xdp_interfaces: vec!["eth0".into(), "eth1".into()],
                xdp_mode: Some(xdp::Mode::Generic),
                xdp_enforce: true,
                conn_rate: Some("50/s".into()),
                conn_burst: Some(200),
                conn_max: Some(9),
                xdp_object: Some("o".into()),
            }
        );
    }

    #[test]
    fn nothing_to_serve_names_both_ways() {
        for line in ["gateway", "gateway run --cores 1", "gateway --listen 127.0.0.1:80"] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(text.contains("--config FILE") && text.contains("--upstream"), "{text}");
        }
    }

    #[test]
    fn a_wrong_value_says_what_would_be_right() {
        for (line, hint) in [
            ("gateway --upstream a:1 --listen localhost:80", "such as 0.0.0.0:8080"),
            ("gateway --config a --access-log xml", "json, combined, off"),
            ("gateway --config a --xdp-mode fast", "native, generic, auto"),
            ("gateway --config a --conn-burst 0", "1.."),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn flags_of_run_do_not_mix_with_other_commands() {
        assert!(parse("gateway --cores 1 version").is_err());
        assert!(matches!(parse("gateway version"), Ok(Command::Version)));
        assert!(matches!(parse("gateway check a.toml"), Ok(Command::Check { .. })));
    }
}
