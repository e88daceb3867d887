//! The proxies that are tried, each as a process with a configuration of its own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gateway,
    Nginx,
    Haproxy,
}

pub const ALL: [Kind; 3] = [Kind::Gateway, Kind::Nginx, Kind::Haproxy];

pub struct Proxy {
    pub address: SocketAddr,
    process: Child,
    folder: PathBuf,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        }
    }

    /// `nginx 1.22.1`, if it is installed.
    pub fn version(self) -> Option<String> {
        let (program, flag) = match self {
            Self::Gateway => return Some("gateway".to_owned()),
            Self::Nginx => ("/usr/sbin/nginx", "-v"),
            Self::Haproxy => ("/usr/sbin/haproxy", "-v"),
        };
        let output = Command::new(program).arg(flag).output().ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let is_version = |word: &&str| {
            word.trim_start_matches("nginx/").starts_with(|first: char| first.is_ascii_digit())
        };
        let word = text.split_whitespace().find(is_version)?;
        let number = word.trim_start_matches("nginx/").split('-').next()?;
        Some(format!("{} {number}", self.name()))
    }

    /// How long a case may take. Some of the others' failures are hangs.
    pub fn patience(self) -> Duration {
        if self == Self::Gateway { Duration::from_secs(20) } else { Duration::from_secs(3) }
    }

    /// Starts one in front of `origin` and waits until it accepts.
    pub fn start(self, origin: SocketAddr) -> Proxy {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("conformance-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        match self {
            Self::Gateway => gateway(folder, origin),
            Self::Nginx => nginx(folder, origin),
            Self::Haproxy => haproxy(folder, origin),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn gateway(folder: PathBuf, origin: SocketAddr) -> Proxy {
    let mut text = String::from(
        "[admin]\naddress = 'off'\n[access_log]\nformat = 'off'\n\
         [timeouts]\nhead = '2s'\nbody = '2s'\n[[listeners]]\naddress = '127.0.0.1:0'\n",
    );
    write!(text, "[upstreams.main]\nendpoints = ['{origin}']\n[[routes]]\nupstream = 'main'\n")
        .unwrap();
    let file = folder.join("gateway.toml");
    std::fs::write(&file, text).unwrap();
    let driver = std::env::var("GATEWAY_TEST_DRIVER").unwrap_or("auto".to_owned());
    let mut process = Command::new(env!("CARGO_BIN_EXE_gateway"))
        .args(["run", "--cores", "1", "--driver", &driver, "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("listening on ")?.1.trim().parse().ok())
        .expect("a gateway that listens");
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok).filter(|line| line.contains("panic")) {
            println!("{line}");
        }
    });
    Proxy { address, process, folder }
}

fn nginx(folder: PathBuf, origin: SocketAddr) -> Proxy {
    let address = free_address();
    let at = folder.display();
    let text = format!(
        "daemon off; master_process off; pid {at}/pid; error_log /dev/null;
         events {{}}
         http {{
             access_log off;
             client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};
             uwsgi_temp_path {at}; scgi_temp_path {at};
             client_header_timeout 2s; client_body_timeout 2s;
             upstream origin {{ server {origin}; keepalive 8; }}
             server {{
                 listen {address};
                 location / {{
                     proxy_pass http://origin;
                     proxy_http_version 1.1;
                     proxy_set_header Connection \"\";
                     proxy_set_header Host $http_host;
                     proxy_request_buffering off;
                     proxy_buffering off;
                 }}
             }}
         }}"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(file).arg("-p").arg(&folder);
    started(command, address, folder)
}

fn haproxy(folder: PathBuf, origin: SocketAddr) -> Proxy {
    let address = free_address();
    let text = format!(
        "global\n    nbthread 1\ndefaults\n    mode http\n    timeout connect 2s\n    \
         timeout client 2s\n    timeout server 2s\n    timeout http-request 2s\n\
         frontend front\n    bind {address}\n    default_backend origin\n\
         backend origin\n    server one {origin}\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(file);
    started(command, address, folder)
}

fn started(mut command: Command, address: SocketAddr, folder: PathBuf) -> Proxy {
    let process =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let proxy = Proxy { address, process, folder };
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{command:?} does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    proxy
}

/// An address nobody listens at; it may be taken before it is used, but hardly is.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
