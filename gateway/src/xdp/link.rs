//! What attaches the program to an interface: a link, which may be pinned.

use std::path::Path;
use std::{fs, io};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{self, ProgramError, XdpMode};

use super::{Error, Hook, hook};

/// Attaches by a link, which ends with the process unless it is pinned; one that is pinned already gets
/// the program in the place of its own. Where it runs then, and the link, if it is yet to be pinned.
pub(super) fn attach(
    program: &mut programs::Xdp,
    interface: &str,
    hook: Hook,
    pin: Option<&Path>,
) -> Result<(Hook, Option<FdLink>), ProgramError> {
    if let Some(pin) = pin
        && replace(program, pin)
    {
        let occupant = hook::occupant(interface).ok().flatten();
        return Ok((occupant.and_then(|occupant| occupant.hook).unwrap_or(hook), None));
    }
    let mode = match hook {
        Hook::Native => XdpMode::Driver,
        Hook::Generic => XdpMode::Skb,
    };
    let link = program.attach(interface, mode)?;
    // Where the kernel answers EINVAL, aya 0.14 tries again by netlink. What is attached so outlives
    // a killed process. Only the name of the link's id tells the two apart.
    if !format!("{link:?}").contains("FdLinkId") {
        program.detach(link)?;
        return Err(ProgramError::IOError(io::Error::other("the kernel makes no link for it")));
    }
    if pin.is_none() {
        return Ok((hook, None));
    }
    let link = FdLink::try_from(program.take_link(link)?);
    link.map(|link| (hook, Some(link)))
        .map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

/// Puts the program into a pinned link, in one step for packets. False where there is none, or one
/// whose interface is gone, which is then removed.
fn replace(program: &mut programs::Xdp, pin: &Path) -> bool {
    let Ok(kept) = PinnedLink::from_pin(pin) else { return false };
    let replaced = XdpLink::try_from(FdLink::from(kept))
        .is_ok_and(|link| program.attach_to_link(link).is_ok());
    if !replaced {
        let _ = fs::remove_file(pin);
    }
    replaced
}

/// The error where another program has the interface, which it names.
pub(super) fn busy(interface: &str) -> Error {
    let occupant = hook::occupant(interface).ok().flatten();
    let owner =
        occupant.map_or_else(|| "another XDP program".to_owned(), |occupant| occupant.describe());
    Error::Busy { interface: interface.to_owned(), owner }
}
