//! Redis and MySQL behind TLS: only servers with a trusted certificate are accepted.

use std::ffi::OsString;
use std::path::Path;

use usher::app::UsherApp;
use usher::config::UsherConfig;
use usher::config::args::ServeArgs;
use usher::dev::{MysqlDurability, PrivateMysql, PrivateRedis, TempDir, free_port};
use usher::shutdown::ShutdownSignal;

use crate::support::certs::{CertificateAuthority, TestCertificate};
use crate::support::cluster::free_port_with_bus;
use crate::support::resp::RespClient;
use crate::support::servers::{REDIS_USER, RedisNodes, with_users};
use crate::support::{
    CONCERT, ELECTION_TIMEOUT, SCHEDULE, TestStores, TestWorld, eventually, new_key, skipped,
    within,
};

const SERVER_NAMES: &[&str] = &["127.0.0.1", "localhost"];

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Opens a TLS port on the test's own Redis.
async fn redis_tls(
    stores: &TestStores,
    files: &TestCertificate,
    authority: &CertificateAuthority,
) -> u16 {
    let mut redis = stores.redis().await;
    let port = free_port().unwrap();
    let set = [
        "CONFIG",
        "SET",
        "tls-cert-file",
        &text(&files.chain),
        "tls-key-file",
        &text(&files.key),
        "tls-ca-cert-file",
        &text(&authority.file),
        "tls-auth-clients",
        "no",
        "tls-port",
        &port.to_string(),
    ]
    .map(str::to_owned);
    redis.ask(&set.each_ref().map(String::as_str)).await;
    port
}

async fn refused(args: &ServeArgs) -> String {
    let config = UsherConfig::new(args).unwrap();
    match Box::pin(UsherApp::build(config, ShutdownSignal::new())).await {
        Ok(_) => panic!("it must not start"),
        Err(error) => error.to_string(),
    }
}

async fn a_seat_is_sold(world: &TestWorld) {
    world.put_show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_user(CONCERT).await;
    api.charge(&guest.user, 1_000).await;
    let reservation = api.hold_seats(&guest.token, SCHEDULE, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sale_on_stores_behind_tls() {
    let dir = TempDir::new("it-tls").unwrap();
    let (ours, theirs) = (
        CertificateAuthority::new(dir.path(), "ours"),
        CertificateAuthority::new(dir.path(), "theirs"),
    );
    let good = ours.sign(dir.path(), "good", SERVER_NAMES);
    let named = ours.sign(dir.path(), "named", &["localhost"]);
    let more =
        [("--ssl-ca=", &ours.file), ("--ssl-cert=", &named.chain), ("--ssl-key=", &named.key)];
    let more = more.map(|(name, path)| OsString::from(format!("{name}{}", text(path))));
    let mysql = dir.path().join("mysql");
    let mysql =
        PrivateMysql::start_with(&mysql, MysqlDurability::Test, free_port().unwrap(), &more)
            .await
            .unwrap();
    let redis = PrivateRedis::start(with_users(&dir.path().join("redis"))).await.unwrap();
    let stores = TestStores::at(redis.port(), &mysql).await;
    let by_address = stores.mysql_url.split('?').next().unwrap().to_owned();
    let bare_mysql = by_address.replace("127.0.0.1", "localhost");

    let args =
        |redis_url: String, redis_ca: Option<&Path>, mysql_url: String, mysql_ca: Option<&Path>| {
            let mut args = stores.args();
            args.stores.redis_url = Some(redis_url);
            args.stores.redis_ca_file = redis_ca.map(text);
            args.stores.mysql_url = Some(mysql_url);
            args.stores.mysql_ca_file = mysql_ca.map(text);
            args
        };
    // MySQL with a certificate of another authority, and with a certificate for another name.
    let wrong = args(stores.redis_url(), None, bare_mysql.clone(), Some(&theirs.file));
    assert!(refused(&wrong).await.starts_with("MySQL is unavailable: "));
    let wrong = args(stores.redis_url(), None, by_address, Some(&ours.file));
    assert!(refused(&wrong).await.starts_with("MySQL is unavailable: "));

    if node(dir.path(), &good, &ours).await.is_none() {
        return skipped("this Redis is built without TLS, so only MySQL was tested");
    }
    let port = redis_tls(&stores, &good, &ours).await;
    let redis = format!("rediss://{REDIS_USER}@127.0.0.1:{port}");
    for ca in [None, Some(theirs.file.as_path())] {
        let wrong = args(redis.clone(), ca, bare_mysql.clone(), Some(&ours.file));
        assert!(refused(&wrong).await.starts_with("Redis is unavailable: "), "{ca:?}");
    }

    let args = args(redis, Some(&ours.file), bare_mysql, Some(&ours.file));
    let world = TestWorld::with_args(stores, &[args]).await;
    a_seat_is_sold(&world).await;
    let clients = world.stores.redis().await.ask(&["CLIENT", "LIST"]).await.text();
    assert!(clients.contains(&format!("laddr=127.0.0.1:{port} ")), "{clients}");
    world.stores.wait_until_idle().await;
}

/// A cluster node that uses TLS for the cluster bus and for clients. `None` if Redis is built
/// without TLS.
async fn node(
    dir: &Path,
    files: &TestCertificate,
    authority: &CertificateAuthority,
) -> Option<(PrivateRedis, u16)> {
    let (chain, key, authority) = (text(&files.chain), text(&files.key), text(&authority.file));
    for attempt in 0.. {
        let (port, tls) = (free_port().unwrap(), free_port_with_bus());
        let (place, tls_port) = (dir.join(format!("node-{tls}")), tls.to_string());
        let more = ["--cluster-enabled", "yes", "--tls-port", &tls_port, "--tls-cluster", "yes"];
        let files =
            ["--tls-cert-file", &chain, "--tls-key-file", &key, "--tls-ca-cert-file", &authority];
        let more = [&more[..], &files[..], &["--tls-auth-clients", "no"]].concat();
        match PrivateRedis::start_with(&place, port, &more).await {
            Ok(redis) => return Some((redis, tls)),
            Err(error)
                if ["Bad directive", "Failed finding TLS"]
                    .iter()
                    .any(|why| error.to_string().contains(why)) =>
            {
                return None;
            }
            // Another process may take one of the ports first.
            Err(error) => assert!(attempt < 5, "{error}"),
        }
    }
    None
}

/// Nodes announce each other's addresses, and over TLS they must announce the TLS port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sale_on_a_cluster_behind_tls() {
    let dir = TempDir::new("it-tls").unwrap();
    let (ours, theirs) = (
        CertificateAuthority::new(dir.path(), "ours"),
        CertificateAuthority::new(dir.path(), "theirs"),
    );
    let files = ours.sign(dir.path(), "node", SERVER_NAMES);
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let Some(node) = node(dir.path(), &files, &ours).await else {
            return skipped("this Redis is built without TLS");
        };
        nodes.push(node);
    }
    let bus = |tls: u16| (tls + 10_000).to_string();
    let mut first = RespClient::connect(nodes[0].0.port()).await;
    first.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]).await;
    let (second, second_tls) = (&nodes[1].0, nodes[1].1);
    let mut other = RespClient::connect(second.port()).await;
    other.ask(&["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await;
    other.ask(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]).await;
    first.ask(&["CLUSTER", "MEET", "127.0.0.1", &second_tls.to_string(), &bus(second_tls)]).await;
    for (redis, _) in &nodes {
        within(ELECTION_TIMEOUT, "the nodes know each other", || async {
            let reported =
                RespClient::connect(redis.port()).await.ask(&["CLUSTER", "INFO"]).await.text();
            (reported.contains("cluster_state:ok") && reported.contains("cluster_known_nodes:2"))
                .then_some(())
        })
        .await;
    }

    // Only the first node is configured. The other one is discovered.
    let url = format!("rediss-cluster://127.0.0.1:{}", nodes[0].1);
    let ports = nodes.iter().map(|(redis, _)| redis.port()).collect();
    let stores =
        TestStores::among(RedisNodes { url, ports, cluster: true, replicas: 1 }, None).await;
    let mut args = stores.args();
    args.stores.redis_ca_file = Some(text(&theirs.file));
    assert!(refused(&args).await.starts_with("Redis is unavailable: "));
    args.stores.redis_ca_file = Some(text(&ours.file));
    let world = TestWorld::with_args(stores, &[args]).await;
    a_seat_is_sold(&world).await;
    for (redis, tls) in &nodes {
        eventually("every node has TLS connections", || async {
            let clients =
                RespClient::connect(redis.port()).await.ask(&["CLIENT", "LIST"]).await.text();
            clients.contains(&format!("laddr=127.0.0.1:{tls} ")).then_some(())
        })
        .await;
    }
    world.stores.wait_until_idle().await;
}
