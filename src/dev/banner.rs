//! The text that `usher dev` prints at the start: addresses, and a tour of example calls.

use std::net::SocketAddr;

pub struct DevAddresses<'a> {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub admin_key: &'a str,
    pub service_key: &'a str,
    pub redis_port: u16,
    /// With credentials; the server listens on 127.0.0.1 only.
    pub mysql_url: &'a str,
    pub simulated_users: u32,
}

/// The text. The tour needs only curl and sed.
pub fn text(addresses: &DevAddresses<'_>) -> String {
    let DevAddresses {
        public,
        admin,
        admin_key,
        service_key,
        redis_port,
        mysql_url,
        simulated_users,
    } = addresses;
    format!(
        r#"
Usher is serving.

  Booking demo     http://{public}/
  Waiting page     http://{public}/waiting/demo
  API              http://{public}/v1
  API reference    http://{public}/docs
  Admin console    http://{admin}/
  Admin key        {admin_key}
  Service key      {service_key}
  Metrics          http://{admin}/metrics
  Redis            redis-cli -p {redis_port}
  MySQL            {mysql_url}
  Demo data        concert demo, coupon demo-coupon, reward demo-reward
  Simulated users  {simulated_users} for 15 minutes; change their number and pace in the console

A tour: join the queue, hold two seats, charge the wallet, pay, and read the used token.
Paste it into another terminal:

  U=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen | tr A-Z a-z); B=http://{public}/v1; c() {{ curl -sS -H "Usher-User: $U" -H "Queue-Token: ${{T:-}}" -H "Idempotency-Key: $RANDOM-$RANDOM" -H 'Content-Type: application/json' "$@"; echo; }}
  T=$(curl -sS -X POST -H "Usher-User: $U" $B/queues/demo/tokens | sed 's/.*"token":"\([^"]*\)".*/\1/'); until c $B/queues/demo/tokens/me | tee /dev/stderr | grep -qE '"status":"(active|expired)"'; do sleep 1; done
  c $B/concerts/demo/schedules; c "$B/schedules/demo-1/seats?status=available"
  R=$(c -d '{{"schedule_id":"demo-1","quantity":2}}' $B/reservations/best | tee /dev/stderr | sed 's/^{{"id":"\([^"]*\)".*/\1/'); c -d '{{"amount":50000}}' $B/wallet/charges
  c -d "{{\"reservation_id\":\"$R\"}}" $B/payments; c $B/queues/demo/tokens/me

Ctrl-C stops everything. The data stays; `make clean-data` removes it.
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
            service_key: "service",
            redis_port: 6390,
            mysql_url: "mysql://u:p@127.0.0.1:3390/usher",
            simulated_users: 1500,
        })
    }

    #[test]
    fn tour_has_five_lines_with_the_right_addresses() {
        let text = example();
        let tour = text.lines().filter(|line| line.starts_with("  ") && line.contains('$'));
        assert_eq!(tour.count(), 5);
        assert!(text.contains("B=http://127.0.0.1:8080/v1;"));
    }

    /// Runs `grep` on a whole ticket, because a waiting one also has an `active_until`.
    #[test]
    fn tour_waits_until_the_ticket_is_active_or_expired() {
        let text = example();
        let pattern =
            text.split("grep -qE '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        for (status, continues) in [("waiting", false), ("active", true), ("expired", true)] {
            let ticket =
                format!(r#"{{"token":"x","status":"{status}","position":3,"active_until":null}}"#);
            let mut grep = std::process::Command::new("grep");
            let mut grep =
                grep.args(["-qE", pattern]).stdin(std::process::Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut grep.stdin.take().unwrap(), ticket.as_bytes()).unwrap();
            assert_eq!(grep.wait().unwrap().success(), continues, "{status}");
        }
    }
}
