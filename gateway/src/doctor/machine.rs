//! What /proc and /sys say.

use std::fs;
use std::path::PathBuf;

/// A machine; in tests, a folder that looks like one.
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub fn here() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// A file's text without the space around it.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim().to_owned())
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The last name of where a link leads.
    pub fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// What a folder has, by name.
    pub fn entries(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect();
        names.sort();
        names
    }

    /// Interfaces that clients most likely come in by: those with a default route, else those that are up.
    pub fn interfaces(&self) -> Vec<String> {
        let v4 = self.read("proc/net/route").unwrap_or_default();
        let v4 = v4.lines().skip(1).filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (interface, destination) = (fields.next()?, fields.next()?);
            let mask = fields.nth(5)?;
            (destination == "00000000" && mask == "00000000").then(|| interface.to_owned())
        });
        let v6 = self.read("proc/net/ipv6_route").unwrap_or_default();
        let v6 = v6.lines().filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [destination, length, .., interface] = fields.as_slice() else { return None };
            let is_default = destination.bytes().all(|digit| digit == b'0') && *length == "00";
            (is_default && *interface != "lo").then(|| (*interface).to_owned())
        });
        let mut all: Vec<_> = v4.chain(v6).collect();
        if all.is_empty() {
            all = self.entries("sys/class/net");
            all.retain(|name| {
                name != "lo"
                    && self.read(&format!("sys/class/net/{name}/operstate")).as_deref()
                        == Some("up")
            });
        }
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine of these files, gone with the value.
    pub struct Made(pub Machine);

    impl Made {
        pub fn of(files: &[(&str, &str)]) -> Self {
            use std::sync::atomic::{AtomicU32, Ordering};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("doctor-{}-{number}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match text.strip_prefix("-> ") {
                    Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
                    None => fs::write(path, text).unwrap(),
                }
            }
            Self(Machine { root })
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.root);
        }
    }

    #[test]
    fn clients_come_in_by_the_default_route() {
        let route = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU\n\
                     eth0 00000000 0102A8C0 0003 0 0 0 00000000 0\n\
                     eth1 0002A8C0 00000000 0001 0 0 0 00FFFFFF 0\n";
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe80 400 1 0 3 wan6\n{zero} 00 {zero} 00 0 0 1 0 200200 lo\n"
        );
        let made = Made::of(&[("proc/net/route", route), ("proc/net/ipv6_route", &v6)]);
        assert_eq!(made.0.interfaces(), ["eth0", "wan6"]);

        let made = Made::of(&[
            ("sys/class/net/lo/operstate", "unknown"),
            ("sys/class/net/a/operstate", "up\n"),
            ("sys/class/net/b/operstate", "down\n"),
        ]);
        assert_eq!(made.0.interfaces(), ["a"]);
    }
}
