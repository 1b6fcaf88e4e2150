//! What commands say about a mistyped setting and about stores that can't be used.

use std::process::{Command, Output};

use usher::dev::free_port;

use crate::support::TestStores;
use crate::support::servers::{ADMIN_KEY, PARTITIONS, TOKEN_KEYS};

fn usher(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher"));
    command.args(arguments);
    command
}

fn with_stores(arguments: &[&str], redis_url: &str, mysql_url: &str) -> Output {
    usher(arguments)
        .args(["--redis-url", redis_url, "--mysql-url", mysql_url, "--auth", "header"])
        .args(["--admin-key", ADMIN_KEY, "--token-keys", TOKEN_KEYS])
        .output()
        .unwrap()
}

fn errors(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn both_stores_that_refuse_connections_are_named() {
    let [redis, mysql] = [free_port().unwrap(), free_port().unwrap()];
    let redis_url = format!("redis://127.0.0.1:{redis}");
    let mysql_url = format!("mysql://usher:secret-of-mysql@127.0.0.1:{mysql}/usher");
    let of_mysql = format!(
        "usher: MySQL is unavailable: 127.0.0.1:{mysql} refused the connection (USHER_MYSQL_URL)\n"
    );
    let of_redis = format!(
        "usher: Redis is unavailable: 127.0.0.1:{redis} refused the connection (USHER_REDIS_URL)\n"
    );
    let shown = errors(&with_stores(&["config", "check", "--connect"], &redis_url, &mysql_url));
    assert_eq!(shown, format!("{of_mysql}{of_redis}"));
    let shown = errors(&with_stores(&["serve"], &redis_url, &mysql_url));
    assert!(shown.ends_with(&of_mysql), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colours in a file: {shown}");
    let migrate = usher(&["migrate", "--mysql-url", &mysql_url]).output().unwrap();
    assert_eq!(errors(&migrate), of_mysql);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_are_named_and_not_shown() {
    let stores = TestStores::new().await;
    let partitions = PARTITIONS.to_string();
    let check = ["config", "check", "--connect", "--partitions", &partitions];
    let (scheme, rest) = stores.mysql_url.split_once("://").unwrap();
    let (_, host) = rest.split_once('@').unwrap();
    let wrong = format!("{scheme}://usher:mistyped-canary@{host}");
    let shown = errors(&with_stores(&check, &stores.redis_url(), &wrong));
    assert!(shown.contains("refused the user name or the password (USHER_MYSQL_URL)"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
    let redis_url = stores.redis_url();
    let (scheme, rest) = redis_url.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let wrong = format!("{scheme}://usher:mistyped-canary@{host}");
    let shown = errors(&with_stores(&check, &wrong, &stores.mysql_url));
    assert!(shown.contains("refused the user name or the password (USHER_REDIS_URL)"), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn mistyped_setting_in_the_environment_is_an_error() {
    let output = usher(&["openapi"]).env("USHER_REDIS_ULR", "redis://h").output().unwrap();
    assert_eq!(
        errors(&output),
        "usher: unknown settings in the environment:\n  \
         USHER_REDIS_ULR: did you mean USHER_REDIS_URL?\n"
    );
}
