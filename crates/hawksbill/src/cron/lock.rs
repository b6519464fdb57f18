//! One gateway of several runs a command: they agree in a Redis.
//!
//! Two keys. The first claims a due time, and stays for a day: clocks that are slightly apart, and runs that are short, do
//! not let a second gateway run it. The second is held while a run is under way, and released at its end, by comparing
//! who holds it; a gateway that died is succeeded when its lease has run out.

use std::time::Duration;

use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, cmd};

/// How long a claimed time is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// How long a lock is held that nobody renews.
const LEASE: Duration = Duration::from_secs(30);

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);

/// How long that Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Changes a key only if the value is the holder's own.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
const RENEW: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end";

/// Who runs it.
pub(super) enum Claim {
    /// This gateway.
    Ours(Held),
    /// Another one has taken this time.
    Others,
    /// The run before is still under way somewhere.
    UnderWay,
}

/// A lock that is held.
pub(super) struct Held {
    connection: MultiplexedConnection,
    key: String,
    token: String,
}

/// Whether this is the address of a Redis.
pub(super) fn check(url: &str) -> Result<(), String> {
    Client::open(url).map(drop).map_err(|error| {
        format!(
            "lock: '{url}' is not the address of a Redis ({error}); write one such as \"redis://127.0.0.1/0\""
        )
    })
}

/// Claims a time of a command.
pub(super) async fn claim(url: &str, name: &str, due: Timestamp) -> Result<Claim, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let mut connection = Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?;
    let token = format!("{}-{}", std::process::id(), Timestamp::now().as_nanosecond());
    if !set(&mut connection, &format!("hawksbill:cron:{name}:{}", due.as_second()), &token, REMEMBERED)
        .await?
    {
        return Ok(Claim::Others);
    }
    let key = format!("hawksbill:cron:{name}");
    if !set(&mut connection, &key, &token, LEASE).await? {
        return Ok(Claim::UnderWay);
    }
    Ok(Claim::Ours(Held { connection, key, token }))
}

/// Sets a key that is not there; whether that was done.
async fn set(
    connection: &mut MultiplexedConnection,
    key: &str,
    token: &str,
    most: Duration,
) -> Result<bool, RedisError> {
    let mut command = cmd("SET");
    command.arg(key).arg(token).arg("NX").arg("PX").arg(milliseconds(most));
    let done: Option<String> = command.query_async(connection).await?;
    Ok(done.is_some())
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Held {
    /// Renews the lock, for ever.
    pub(super) async fn keep(&self, name: &str) {
        let mut connection = self.connection.clone();
        loop {
            tokio::time::sleep(RENEWAL).await;
            let mut renew = cmd("EVAL");
            renew.arg(RENEW).arg(1).arg(&self.key).arg(&self.token).arg(milliseconds(LEASE));
            let trouble = match renew.query_async::<i64>(&mut connection).await {
                Ok(1) => continue,
                Ok(_) => "its lock has been lost; another gateway may begin a run".to_owned(),
                Err(error) => format!("its lock cannot be renewed: {error}"),
            };
            tracing::warn!(target: "hawksbill::cron", "{name}: {trouble}");
        }
    }

    /// Lets go of it, if it is still held.
    pub(super) async fn release(mut self) {
        let mut release = cmd("EVAL");
        release.arg(RELEASE).arg(1).arg(&self.key).arg(&self.token);
        let released: Result<i64, RedisError> = release.query_async(&mut self.connection).await;
        if let Err(error) = released {
            tracing::warn!(target: "hawksbill::cron", "{}: it cannot be released, and ends by itself: {error}", self.key);
        }
    }
}
