//! Open streams: what they cost Redis and the service while the line stands, and while it moves.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use usher::http::descriptors;

use crate::meter::Reading;
use crate::redis::Redis;
use crate::stack::Stack;
use crate::table::{Table, figure};
use crate::{Failure, machine, prepare, print, progress};

/// How long new streams may take to get their first ticket.
const SETTLE: Duration = Duration::from_secs(3);
/// Users let in each second while the line moves.
const PACE: u32 = 10;

const READING: &str = "\nOne instance, one queue, every stream of a user who waits. The line stands (paused), then moves by ten a second, so that \
everybody's position changes. `commands` is Redis' own count, with those that scripts make; the background work of the instance is in it. Events are tickets and \
heartbeats that arrived. CPU is of one core.\n";

/// Opens so many streams, step by step, and prints the table.
pub(crate) async fn run(
    counts: &[usize],
    time: Duration,
    usher: Option<std::path::PathBuf>,
) -> Result<(), Failure> {
    let most = counts.iter().copied().max().unwrap_or(0);
    let room = descriptors::room_for(most);
    if most == 0 || room < most {
        return Err(
            format!("--streams must be from 1; the limit of open files leaves room for {room}").into()
        );
    }
    let stack = Stack::start(usher).await?;
    let measured = LocalSet::new().run_until(measure(&stack, counts, most, time)).await;
    stack.stop().await?;
    measured
}

async fn measure(stack: &Stack, counts: &[usize], most: usize, time: Duration) -> Result<(), Failure> {
    let queue = "streams";
    prepare::paused_queue(stack, queue).await?;
    progress(&format!("{most} people get in line"));
    let tokens = prepare::joined(stack, queue, most).await?;
    let mut table = Table::new(&[
        "streams",
        "the line",
        "commands a second",
        "scripts",
        "events",
        "service CPU %",
        "Redis CPU %",
        "service MiB",
    ]);
    let mut redis = Redis::open(stack.redis_port())?;
    let (heard, open) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_usize)));
    let mut opened = 0;
    for (nth, &count) in counts.iter().enumerate() {
        progress(&format!("{count} streams"));
        while opened < count {
            let request = format!(
                "GET /v1/queues/{queue}/tokens/me/events HTTP/1.1\r\nhost: usher\r\nqueue-token: {}\r\n\r\n",
                tokens[opened]
            );
            let mut stream = TcpStream::connect(stack.public).await?;
            stream.write_all(request.as_bytes()).await?;
            tokio::task::spawn_local(listen(stream, heard.clone(), open.clone()));
            opened += 1;
        }
        let mut lines = vec!["stands"];
        if nth + 1 == counts.len() {
            lines.push("moves");
        }
        for line in lines {
            if line == "moves" {
                let settings =
                    json!({"promote_per_interval": PACE, "interval_ms": 1_000, "max_active": 1_000_000});
                prepare::must_put(stack, &format!("/admin/queues/{queue}"), &settings).await?;
            }
            tokio::time::sleep(SETTLE).await;
            let (before, heard_before) = (Reading::take(stack, &mut redis)?, heard.get());
            let began = Instant::now();
            tokio::time::sleep(time).await;
            let used = Reading::take(stack, &mut redis)?.since(&before);
            let seconds = began.elapsed().as_secs_f64();
            if open.get() < count {
                return Err(format!("{} of {count} streams are open", open.get()).into());
            }
            let rate = |sum: u64| figure(sum as f64 / seconds);
            let share = |us: u64| figure(us as f64 / seconds / 1e4);
            table.row(vec![
                count.to_string(),
                line.to_owned(),
                rate(used.commands),
                rate(used.scripts),
                rate(heard.get() - heard_before),
                share(used.cpu.service),
                share(used.cpu.redis),
                figure(resident_mib(stack.service_pid())?),
            ]);
        }
    }
    print(&format!("{}\n\n{}{READING}", machine::describe(), table.render()))
}

/// Reads one stream to its end. It counts as open from its first event on.
async fn listen(mut stream: TcpStream, heard: Rc<Cell<u64>>, open: Rc<Cell<usize>>) {
    let mut buffer = [0; 2_048];
    let mut first = true;
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let events = buffer[..count].windows(2).filter(|pair| *pair == b"\n\n").count() as u64;
        heard.set(heard.get() + events);
        if first && events > 0 {
            first = false;
            open.set(open.get() + 1);
        }
    }
    open.set(open.get().saturating_sub(1));
}

fn resident_mib(pid: u32) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("the kernel tells no VmRSS")?.trim().parse::<f64>()? / 1_024.0)
}
