//! The smallest proxy that can be made with Pingora: one thread, one upstream, nothing else.
//!
//! `bench-pingora LISTEN UPSTREAM [CHAIN KEY]`

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Relay {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Relay {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _context: &mut (),
    ) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream.as_str(), false, String::new())))
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, upstream, tls) = match arguments.as_slice() {
        [listen, upstream] => (listen, upstream, None),
        [listen, upstream, chain, key] => (listen, upstream, Some((chain, key))),
        _ => {
            eprintln!("usage: bench-pingora LISTEN UPSTREAM [CHAIN KEY]");
            std::process::exit(2);
        }
    };
    let settings =
        ServerConf { threads: 1, upstream_keepalive_pool_size: 128, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, settings);
    server.bootstrap();
    let relay = Relay { upstream: upstream.clone() };
    let mut service = http_proxy_service(&Arc::clone(&server.configuration), relay);
    match tls {
        Some((chain, key)) => service.add_tls(listen, chain, key)?,
        None => service.add_tcp(listen),
    }
    server.add_service(service);
    server.run_forever()
}
