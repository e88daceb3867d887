//! Lays the flags over the file: each takes the place of the key it stands for, so that the one
//! check that follows need not know which of the two a value came from.

use std::net::SocketAddr;

use super::Overrides;
use super::check::{MODES, UPSTREAM_DEFAULT};
use crate::document::Place;
use crate::document::value::{Kind, Table, Value};

pub(super) fn lay_over(root: &mut Table, flags: &Overrides) {
    let text = |text: &String| Kind::Text(text.clone());
    set(root, "--cores", "runtime", "cores", flags.cores.as_ref().map(text));
    set(root, "--driver", "runtime", "driver", flags.driver.as_ref().map(text));
    set(root, "--admin", "admin", "address", flags.admin.as_ref().map(text));
    set(root, "--access-log", "access_log", "format", flags.access_log.as_ref().map(text));
    let standard_output = flags.access_log.as_ref().map(|_| Kind::Text("-".to_owned()));
    set(root, "--access-log", "access_log", "path", standard_output);

    let interfaces = list("--xdp-interface", flags.xdp_interfaces.iter().map(text));
    set(root, "--xdp-interface", "xdp", "interfaces", interfaces);
    // Whoever names an interface on the command line wants the limit, not a warning.
    let required = (!flags.xdp_interfaces.is_empty()).then_some(Kind::Boolean(true));
    set(root, "--xdp-interface", "xdp", "required", required);
    let mode = MODES.iter().find(|(_, mode)| flags.xdp_mode == Some(*mode));
    set(root, "--xdp-mode", "xdp", "mode", mode.map(|(word, _)| Kind::Text((*word).to_owned())));
    let enforce = flags.xdp_enforce.then_some(Kind::Boolean(true));
    set(root, "--xdp-enforce", "xdp", "enforce", enforce);
    set(root, "--conn-rate", "xdp", "connection_rate", flags.conn_rate.as_ref().map(text));
    let burst = flags.conn_burst.map(|burst| Kind::Integer(burst.into()));
    set(root, "--conn-burst", "xdp", "connection_burst", burst);
    let open = flags.conn_max.map(|open| Kind::Integer(open.into()));
    set(root, "--conn-max", "xdp", "connections_max", open);
    let object = flags.xdp_object.as_ref().map(|path| Kind::Text(path.display().to_string()));
    set(root, "--xdp-object", "xdp", "object", object);

    let address = |address: &SocketAddr| Kind::Text(address.to_string());
    let listeners = flags.listen.iter().map(|at| table("--listen", "address", address(at)));
    if let Some(listeners) = list("--listen", listeners) {
        replace(root, "--listen", "listeners", listeners);
    }
    if let Some(endpoints) = list("--upstream", flags.upstream.iter().map(text)) {
        let upstream = table("--upstream", "endpoints", endpoints);
        replace(root, "--upstream", "upstreams", table("--upstream", UPSTREAM_DEFAULT, upstream));
        let route = table("--upstream", "upstream", Kind::Text(UPSTREAM_DEFAULT.to_owned()));
        let place = Place::Flag("--upstream");
        replace(root, "--upstream", "routes", Kind::List(vec![Value { place, kind: route }]));
    }
}

/// Puts `kind` at `key` of the table called `table`. Where the file has something else than a
/// table there, its mistake stays to be reported.
fn set(root: &mut Table, flag: &'static str, table: &str, key: &str, kind: Option<Kind>) {
    let place = Place::Flag(flag);
    if let Some(kind) = kind
        && let Some(table) = root.table_at(table, place)
    {
        table.0.insert(key.to_owned(), Value { place, kind });
    }
}

fn replace(root: &mut Table, flag: &'static str, key: &str, kind: Kind) {
    root.0.insert(key.to_owned(), Value { place: Place::Flag(flag), kind });
}

/// `None` if the flag was not given.
fn list(flag: &'static str, kinds: impl Iterator<Item = Kind>) -> Option<Kind> {
    let place = Place::Flag(flag);
    let values: Vec<_> = kinds.map(|kind| Value { place, kind }).collect();
    (!values.is_empty()).then_some(Kind::List(values))
}

/// A table of one key.
fn table(flag: &'static str, key: &str, kind: Kind) -> Kind {
    let value = Value { place: Place::Flag(flag), kind };
    Kind::Table(Table([(key.to_owned(), value)].into()))
}
