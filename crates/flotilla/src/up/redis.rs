//! The Redis of a local fleet. It keeps nothing on disk: the truth is in the data directory.

use super::program::Program;
use rand::Rng;
use rand::distr::Alphanumeric;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A Redis server that only this fleet can use: other users of the machine can connect, too, but lack the password.
pub struct Redis {
    port: u16,
    password: String,
}

impl Redis {
    /// A server on this port of 127.0.0.1.
    pub fn new(port: u16) -> Self {
        let password = rand::rng().sample_iter(Alphanumeric).take(32).map(char::from).collect();
        Self { port, password }
    }

    /// Its address, with the password.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}/", self.password, self.port)
    }

    /// How it is started. Its configuration goes in by stdin, where the password is not seen.
    pub fn program(&self, file: PathBuf, run_dir: &Path) -> Program {
        let Self { port, password } = self;
        let input = format!(
            "bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave \"\"\nappendonly no\nmaxmemory-policy noeviction\n\
             daemonize no\nsupervised no\nloglevel notice\nlogfile \"\"\ndir \"{}\"\n",
            run_dir.display().to_string().replace('\\', "\\\\").replace('"', "\\\"")
        );
        Program {
            name: "redis-server".to_owned(),
            file,
            args: vec!["-".into()],
            env: Vec::new(),
            without_env: Vec::new(),
            input,
            logs_by_itself: false,
            grace: Duration::from_secs(5),
        }
    }

    /// Whether it answers. That it wants a password is an answer.
    pub async fn answers(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer).await?;
            std::io::Result::Ok(&answer == b"-NOAUTH")
        };
        ask.await.unwrap_or(false)
    }
}
