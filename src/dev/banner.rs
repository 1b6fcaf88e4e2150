//! What `usher dev` tells the one who started it: where to look, and a tour to paste.

use std::net::SocketAddr;

/// Where everything is.
pub struct DevAddresses<'a> {
    /// The public listener.
    pub public: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The key that admin calls carry.
    pub admin_key: &'a str,
    /// The private Redis.
    pub redis_port: u16,
    /// The private MySQL-compatible server, with its credentials: it listens on this machine alone.
    pub mysql_url: &'a str,
    /// People of the demo crowd; 0 is none for now.
    pub crowd: u32,
}

/// The text. The tour uses nothing but curl and sed, so that it works wherever the service does.
pub fn text(at: &DevAddresses<'_>) -> String {
    let DevAddresses { public, admin, admin_key, redis_port, mysql_url, crowd } = at;
    format!(
        r#"
Usher is serving.

  book a seat  http://{public}/        waiting page http://{public}/waiting/demo
  console      http://{admin}/        metrics      http://{admin}/metrics
  API          http://{public}/v1      reference    http://{public}/docs
  admin key    {admin_key}
  Redis        redis-cli -p {redis_port}
  MySQL        {mysql_url}
  to try       coupon demo-coupon, reward demo-reward
  demo crowd   {crowd} people for a quarter of an hour; the console sets how many, and how fast they are

A tour: join the line, hold two seats, charge the wallet, pay, and see the token used up. Paste it into another terminal:

  U=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr A-Z a-z); B=http://{public}/v1; c() {{ curl -sS -H "Usher-User: $U" -H "Queue-Token: ${{T:-}}" -H "Idempotency-Key: $RANDOM-$RANDOM" -H 'Content-Type: application/json' "$@"; echo; }}
  T=$(curl -sS -X POST -H "Usher-User: $U" $B/queues/demo/tokens | sed 's/.*"token":"\([^"]*\)".*/\1/'); until c $B/queues/demo/tokens/me | tee /dev/stderr | grep -qE '"status":"(active|expired)"'; do sleep 1; done
  c $B/concerts/demo/schedules; c "$B/schedules/demo-1/seats?status=available"
  R=$(c -d '{{"schedule_id":"demo-1","quantity":2}}' $B/reservations/best | tee /dev/stderr | sed 's/^{{"id":"\([^"]*\)".*/\1/'); c -d '{{"amount":50000}}' $B/wallet/charges
  c -d "{{\"reservation_id\":\"$R\"}}" $B/payments; c $B/queues/demo/tokens/me

Ctrl-C stops everything that was started here. The data stays; `make clean-data` removes it.
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> String {
        text(&DevAddresses {
            public: "127.0.0.1:8080".parse().unwrap(),
            admin: "127.0.0.1:8081".parse().unwrap(),
            admin_key: "key",
            redis_port: 6390,
            mysql_url: "mysql://u:p@127.0.0.1:3390/usher",
            crowd: 1500,
        })
    }

    #[test]
    fn the_tour_has_five_lines_and_names_the_right_places() {
        let text = example();
        let tour = text.lines().filter(|line| line.starts_with("  ") && line.contains('$'));
        assert_eq!(tour.count(), 5);
        assert!(text.contains("B=http://127.0.0.1:8080/v1;"));
    }

    /// `grep` itself is asked, and a whole ticket: one that waits has an `active_until`, too.
    #[test]
    fn the_tour_waits_in_line_and_not_for_ever() {
        let text = example();
        let pattern =
            text.split("grep -qE '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        for (status, goes_on) in [("waiting", false), ("active", true), ("expired", true)] {
            let ticket =
                format!(r#"{{"token":"x","status":"{status}","position":3,"active_until":null}}"#);
            let mut grep = std::process::Command::new("grep");
            let mut grep =
                grep.args(["-qE", pattern]).stdin(std::process::Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut grep.stdin.take().unwrap(), ticket.as_bytes()).unwrap();
            assert_eq!(grep.wait().unwrap().success(), goes_on, "{status}");
        }
    }
}
