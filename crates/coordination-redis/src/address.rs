//! From a URL to what it names: a server, or a service whose master sentinels know.

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisConnectionInfo};
use redis::{RedisError, RedisResult, TlsCertificates};
use std::time::Duration;

/// The port of a sentinel that is named without one.
const SENTINEL_PORT: u16 = 26_379;

/// What a URL names.
pub enum Address {
    /// One server.
    Server(Client),
    /// Whichever server is the master.
    Service(Service),
}

/// A service whose master sentinels know.
#[derive(Clone)]
pub struct Service {
    /// What the sentinels call it.
    pub name: String,
    /// The sentinels.
    pub sentinels: Vec<Client>,
    scheme: &'static str,
    login: RedisConnectionInfo,
    authorities: Option<String>,
}

impl Address {
    /// Reads `redis://`, `rediss://`, `redis+unix://`, and of services
    /// `redis+sentinel://[user:password@]host[:port][,host[:port]...]/service[?db=N&sentinel_username=U&sentinel_password=P]`
    /// or `rediss+sentinel://`, where both sentinels and servers speak TLS. `authorities` are the certificates, in PEM,
    /// that servers are checked against; none: those of the system.
    ///
    /// Errors: why it is no such URL, without repeating it, for it may hold a password.
    pub fn parse(url: &str, authorities: Option<&str>) -> Result<Self, String> {
        let known = [("redis+sentinel://", "redis"), ("rediss+sentinel://", "rediss")];
        match known.into_iter().find_map(|(prefix, scheme)| Some((scheme, url.strip_prefix(prefix)?))) {
            Some((scheme, rest)) => service(scheme, rest, authorities).map(Self::Service),
            None => client(url, authorities).map(Self::Server).map_err(|error| error.category().to_owned()),
        }
    }

    /// Where it is, without secrets.
    pub fn shown(&self) -> String {
        match self {
            Self::Server(client) => client.get_connection_info().addr().to_string(),
            Self::Service(service) => {
                let sentinels =
                    service.sentinels.iter().map(|sentinel| sentinel.get_connection_info().addr().to_string());
                format!("{} behind the sentinels {}", service.name, sentinels.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Service {
    /// The client of one of its servers.
    pub fn client(&self, host: &str, port: u16) -> RedisResult<Client> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let server = format!("{}://{host}:{port}", self.scheme).into_connection_info()?;
        secured(server.set_redis_settings(self.login.clone()), self.authorities.as_deref())
    }
}

fn service(scheme: &'static str, rest: &str, authorities: Option<&str>) -> Result<Service, String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (servers, name) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = servers.rsplit_once('@').unwrap_or(("", servers));
    // What sentinels accept as a name.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err("a service's name must follow the sentinels: redis+sentinel://HOST:PORT,HOST:PORT/NAME".into());
    }
    let (mut db, mut username, mut password) = ("0", "", "");
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("db", value)) => db = value,
            Some(("sentinel_username", value)) => username = value,
            Some(("sentinel_password", value)) => password = value,
            _ => return Err("its parameters are db, sentinel_username and sentinel_password".into()),
        }
    }
    let wrong = |error: RedisError| error.category().to_owned();
    let sentinel = |host: &str| {
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let port = if has_port { String::new() } else { format!(":{SENTINEL_PORT}") };
        client(&format!("{scheme}://{username}:{password}@{host}{port}"), authorities)
    };
    let server = format!("{scheme}://{login}@server/{db}").into_connection_info().map_err(wrong)?;
    Ok(Service {
        name: name.to_owned(),
        sentinels: hosts.split(',').map(sentinel).collect::<RedisResult<_>>().map_err(wrong)?,
        scheme,
        login: server.redis_settings().clone(),
        authorities: authorities.map(str::to_owned),
    })
}

fn client(url: &str, authorities: Option<&str>) -> RedisResult<Client> {
    secured(url.into_connection_info()?, authorities)
}

/// A client whose sockets send at once and notice a peer that is gone, and that checks certificates.
fn secured(server: ConnectionInfo, authorities: Option<&str>) -> RedisResult<Client> {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive.with_retries(3))
        .set_user_timeout(Duration::from_secs(10));
    let server = server.set_tcp_settings(tcp);
    match (server.addr(), authorities) {
        (ConnectionAddr::TcpTls { insecure: true, .. }, _) => {
            Err(RedisError::from((ErrorKind::InvalidClientConfig, "certificates are always checked")))
        }
        (ConnectionAddr::TcpTls { .. }, Some(authorities)) => {
            let root_cert = Some(authorities.as_bytes().to_owned());
            Client::build_with_tls(server, TlsCertificates { client_tls: None, root_cert })
        }
        _ => Client::open(server),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(url: &str) -> Service {
        match Address::parse(url, None) {
            Ok(Address::Service(service)) => service,
            Ok(Address::Server(_)) => panic!("{url} is a server"),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    #[test]
    fn a_service_is_named_by_its_sentinels() {
        let url =
            "redis+sentinel://me:p%40ss@a:1,b,[::1],[::1]:2/main.1?db=3&sentinel_username=it&sentinel_password=s%2Fe";
        let service = named(url);
        let sentinels: Vec<_> = service.sentinels.iter().map(|s| s.get_connection_info().addr().to_string()).collect();
        assert_eq!(sentinels, ["a:1", "b:26379", "::1:26379", "::1:2"]);
        assert_eq!(service.name, "main.1");
        let login = service.sentinels[1].get_connection_info().redis_settings();
        assert_eq!((login.username(), login.password(), login.db()), (Some("it"), Some("s/e"), 0));
        for (host, shown) in [("10.0.0.1", "10.0.0.1:7"), ("::1", "::1:7"), ("redis.example", "redis.example:7")] {
            let server = service.client(host, 7).unwrap();
            let server = server.get_connection_info();
            assert_eq!(server.addr().to_string(), shown);
            let login = server.redis_settings();
            assert_eq!((login.username(), login.password(), login.db()), (Some("me"), Some("p@ss"), 3));
        }
        let plain = named("redis+sentinel://a/main");
        assert_eq!(plain.sentinels[0].get_connection_info().redis_settings().password(), None);
        assert_eq!(plain.client("b", 1).unwrap().get_connection_info().redis_settings().password(), None);
    }

    #[test]
    fn a_service_may_speak_tls() {
        let service = named("rediss+sentinel://a/main");
        let is_tls = |client: &Client| matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
        assert!(service.sentinels.iter().all(is_tls));
        assert!(is_tls(&service.client("b", 1).unwrap()));
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_repeated() {
        for url in [
            "redis://:s3cret@host:port",
            "http://:s3cret@host",
            "redis://u:s3cret@host/nodb",
            "rediss://:s3cret@host/#insecure",
            "redis+sentinel://:s3cret@host",
            "redis+sentinel://:s3cret@host/",
            "redis+sentinel://:s3cret@host/a/b",
            "redis+sentinel://:s3cret@host,/main",
            "redis+sentinel://:s3cret@host/main?db=x",
            "redis+sentinel://host/main?sentinel_pasword=s3cret",
            "redis+sentinel://host:x/main?sentinel_password=s3cret",
        ] {
            let error = Address::parse(url, None).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for url in ["redis://u:s3cret@host", "redis+sentinel://u:s3cret@host,b/main?sentinel_password=s3cret"] {
            let shown = Address::parse(url, None).unwrap_or_else(|error| panic!("{error}")).shown();
            assert!(shown.contains("host") && !shown.contains("s3cret"), "{shown}");
        }
    }
}
