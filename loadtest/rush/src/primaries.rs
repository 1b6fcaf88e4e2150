//! What more primaries of a Redis Cluster carry: the same lines and coupons, dealt out evenly over one, two and three of them.
//!
//! The primaries have no replicas, and everything shares one machine: with more primaries than cores the throughput says less than what each request costs each
//! of them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use usher::dev::{PrivateRedis, TempDir};
use usher::partition::{Partitions, Slot};

use crate::closed::{self, Outcome};
use crate::meter::cpu_us;
use crate::redis::Redis;
use crate::scenario::{People, Scenario};
use crate::stack::Stack;
use crate::table::{Table, figure};
use crate::{Failure, machine, prepare, print, progress};

/// Lines and coupons, which any of the counts of primaries divides.
const THINGS: usize = 12;
/// Connections of all of them together.
const CONNECTIONS: usize = 252;
/// Hash slots of a cluster.
const SLOTS: usize = 16_384;
/// How long the nodes may take to agree.
const AGREED_WITHIN: Duration = Duration::from_secs(60);
/// Ports that are tried for a node: that of its bus, ten thousand above, may be taken.
const PORTS: std::ops::Range<u16> = 15_000..22_000;

/// Prints a table for so many primaries, one row each.
pub(crate) async fn run(counts: &[usize], time: Duration) -> Result<(), Failure> {
    if counts.iter().any(|count| !THINGS.is_multiple_of(*count)) {
        return Err(format!("--primaries must divide {THINGS}").into());
    }
    print(&format!("{}\n\n", machine::describe()))?;
    let heads = [
        "primaries",
        "kind",
        "a second",
        "p50 ms",
        "p99 ms",
        "failed",
        "CPU µs service",
        "Redis",
        "of it on each",
    ];
    let mut table = Table::new(&heads);
    for &count in counts {
        progress(&format!("starting a cluster of {count}"));
        let dir = TempDir::new("rush-cluster")?;
        let nodes = start(&dir, count).await?;
        let hosts: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let url = format!("redis-cluster://{}", hosts.join(","));
        let stack = Stack::on(nodes, dir, url, None, &[]).await?;
        let measured = measure(&stack, &mut table, count, time).await;
        stack.stop().await?;
        measured?;
    }
    print(&table.render())
}

async fn measure(stack: &Stack, table: &mut Table, count: usize, time: Duration) -> Result<(), Failure> {
    let mut first = Redis::open(stack.redis_port())?;
    for kind in ["join", "issue"] {
        progress(&format!("{kind} on {count} primaries"));
        let mut scenarios = Vec::new();
        for name in names(&mut first, kind, count)? {
            let people = People::new();
            scenarios.push(Rc::new(if kind == "join" {
                prepare::paused_queue(&stack.target, &name).await?;
                Scenario::Join { path: format!("/v1/queues/{name}/tokens"), people }
            } else {
                prepare::coupon(&stack.target, &name, 1_000_000_000).await?;
                Scenario::Issue { path: format!("/v1/coupons/{name}/issues"), people, status: 201 }
            }));
        }
        // Until everybody knows of them.
        sleep(Duration::from_secs(1)).await;
        let (service, redis) = (cpu_us(stack.service_pid())?, used(stack)?);
        let outcomes = at_once(&scenarios, stack.target.public, time).await?;
        let (service, after) = (cpu_us(stack.service_pid())? - service, used(stack)?);
        let each: Vec<u64> = after.iter().zip(redis).map(|(after, before)| after - before).collect();
        let mut all = Outcome::nothing()?;
        outcomes.into_iter().try_for_each(|outcome| all.add(outcome))?;
        let done = all.succeeded() as f64;
        table.row(vec![
            count.to_string(),
            kind.to_owned(),
            figure(all.rate()),
            figure(all.latency.value_at_quantile(0.5) as f64 / 1e6),
            figure(all.latency.value_at_quantile(0.99) as f64 / 1e6),
            all.failures.values().sum::<u64>().to_string(),
            figure(service as f64 / done),
            figure(each.iter().sum::<u64>() as f64 / done),
            each.iter().map(|one| figure(*one as f64 / done)).collect::<Vec<_>>().join(" "),
        ]);
    }
    Ok(())
}

/// All scenarios at once, each on its share of the connections.
async fn at_once(
    scenarios: &[Rc<Scenario>],
    address: SocketAddr,
    time: Duration,
) -> Result<Vec<Outcome>, Failure> {
    let share = CONNECTIONS / scenarios.len();
    let runs = scenarios.iter().map(|scenario| closed::run(scenario, address, share, time));
    futures::future::try_join_all(runs).await
}

/// Processor time of each Redis, in microseconds.
fn used(stack: &Stack) -> Result<Vec<u64>, Failure> {
    Ok(stack.redis_pids().map(cpu_us).collect::<Result<_, _>>()?)
}

/// Names of things, as many on each primary.
fn names(redis: &mut Redis, kind: &str, count: usize) -> Result<Vec<String>, Failure> {
    let mut left = vec![THINGS / count; count];
    let mut names = Vec::new();
    for nth in 0.. {
        if names.len() == THINGS {
            break;
        }
        let name = format!("{kind}-{nth}");
        let partition = Partitions::default().of(Slot::of(name.as_bytes()));
        let slot: usize = redis.text(&["CLUSTER", "KEYSLOT", &format!("{{{partition}}}")])?.parse()?;
        let room = &mut left[slot * count / SLOTS];
        if *room > 0 {
            *room -= 1;
            names.push(name);
        }
    }
    Ok(names)
}

/// So many primaries, each with its share of the slots, that know each other.
async fn start(dir: &TempDir, count: usize) -> Result<Vec<PrivateRedis>, Failure> {
    let mut nodes = Vec::new();
    let mut ports = PORTS.step_by(7);
    while nodes.len() < count {
        let port = ports.next().ok_or("no port is free for a node")?;
        let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            let dir = dir.path().join(port.to_string());
            nodes.push(PrivateRedis::start_as(&dir, port, &["--cluster-enabled", "yes"]).await?);
        }
    }
    let mut links = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let mut link = Redis::open(node.port())?;
        // The slots of which `slot * count / SLOTS` is `at`.
        let (from, to) = ((at * SLOTS).div_ceil(count), ((at + 1) * SLOTS).div_ceil(count) - 1);
        link.text(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()])?;
        link.text(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()])?;
        links.push(link);
    }
    for node in &nodes[1..] {
        links[0].text(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()])?;
    }
    let began = Instant::now();
    for link in &mut links {
        while !link.text(&["CLUSTER", "INFO"])?.contains("cluster_state:ok") {
            if began.elapsed() > AGREED_WITHIN {
                return Err("the nodes do not agree".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(nodes)
}
