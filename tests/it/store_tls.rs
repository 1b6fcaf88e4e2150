//! Redis and MySQL behind TLS: whoever is vouched for is spoken to, and nobody else.

use std::ffi::OsString;
use std::path::Path;

use usher::app::App;
use usher::config::Config;
use usher::config::args::ServeArgs;
use usher::dev::{Durability, PrivateMysql, PrivateRedis, TempDir, free_port};
use usher::shutdown::Shutdown;

use crate::support::certs::{Authority, Files};
use crate::support::resp::Reply;
use crate::support::{NIGHT, SHOW, Stores, World, new_key};

const HERE: &[&str] = &["127.0.0.1", "localhost"];

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Opens a port for TLS on the test's own Redis; none where its build has no TLS.
async fn redis_tls(stores: &Stores, files: &Files, authority: &Authority) -> Option<u16> {
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
    let answer = redis.try_ask(&set.each_ref().map(String::as_str)).await;
    match answer {
        Reply::Error(why) if why.contains("Unknown option") => None,
        Reply::Error(why) => panic!("{why}"),
        _ => Some(port),
    }
}

async fn refused(args: &ServeArgs) -> String {
    let config = Config::new(args).unwrap();
    match Box::pin(App::build(config, Shutdown::new())).await {
        Ok(_) => panic!("it must not start"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_on_stores_behind_tls() {
    let dir = TempDir::new("it-tls").unwrap();
    let (ours, theirs) = (Authority::new(dir.path(), "ours"), Authority::new(dir.path(), "theirs"));
    let good = ours.sign(dir.path(), "good", HERE);
    let named = ours.sign(dir.path(), "named", &["localhost"]);
    let more = [("--ssl-ca=", &ours.file), ("--ssl-cert=", &named.chain), ("--ssl-key=", &named.key)];
    let more = more.map(|(name, path)| OsString::from(format!("{name}{}", text(path))));
    let mysql = dir.path().join("mysql");
    let mysql =
        PrivateMysql::start_with(&mysql, Durability::Test, free_port().unwrap(), &more).await.unwrap();
    let redis = PrivateRedis::start(&dir.path().join("redis")).await.unwrap();
    let stores = Stores::at(redis.port(), &mysql).await;
    let by_address = stores.mysql_url.split('?').next().unwrap().to_owned();
    let bare_mysql = by_address.replace("127.0.0.1", "localhost");

    let args = |redis_url: String, redis_ca: Option<&Path>, mysql_url: String, mysql_ca: Option<&Path>| {
        let mut args = stores.args();
        args.stores.redis_url = Some(redis_url);
        args.stores.redis_ca_file = redis_ca.map(text);
        args.stores.mysql_url = Some(mysql_url);
        args.stores.mysql_ca_file = mysql_ca.map(text);
        args
    };
    // MySQL: one that another authority vouches for, and one whose certificate is for another name.
    let wrong = args(stores.redis_url(), None, bare_mysql.clone(), Some(&theirs.file));
    assert!(refused(&wrong).await.starts_with("MySQL: "));
    let wrong = args(stores.redis_url(), None, by_address, Some(&ours.file));
    assert!(refused(&wrong).await.starts_with("MySQL: "));

    let Some(port) = redis_tls(&stores, &good, &ours).await else {
        println!("this Redis is built without TLS, so only MySQL was tried");
        return;
    };
    let redis = format!("rediss://127.0.0.1:{port}");
    for ca in [None, Some(theirs.file.as_path())] {
        let wrong = args(redis.clone(), ca, bare_mysql.clone(), Some(&ours.file));
        assert!(refused(&wrong).await.starts_with("Redis: "), "{ca:?}");
    }

    let args = args(redis, Some(&ours.file), bare_mysql, Some(&ours.file));
    let world = World::with_args(stores, &[args]).await;
    world.show(10, 1_000).await;
    let api = &world.api;
    let guest = api.active_guest(SHOW).await;
    api.charge(&guest.user, 1_000).await;
    let reservation = api.held(&guest.token, NIGHT, &[1]).await;
    api.pay(&guest.token, &reservation, &new_key()).await.expect(201);
    let clients = world.stores.redis().await.ask(&["CLIENT", "LIST"]).await.text();
    assert!(clients.contains(&format!("laddr=127.0.0.1:{port} ")), "{clients}");
    world.stores.at_rest().await;
}
