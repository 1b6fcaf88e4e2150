//! Users known by the JWTs of somebody else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::support::{Api, Instance, SHOW, Stores, World, eventually, new_key, new_user};

/// An issuer of tokens with a key of its own.
struct Issuer {
    kid: &'static str,
    pair: Ed25519KeyPair,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        let seed: [u8; 32] = rand::random();
        Self { kid, pair: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap() }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": BASE64.encode(self.pair.public_key())})
    }

    fn bearer(&self, user: &str, seconds: i64, audience: &str) -> String {
        let claims = json!({"sub": user, "exp": jsonwebtoken::get_current_timestamp().cast_signed() + seconds, "aud": audience});
        let part = |value: Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": self.kid})), part(claims));
        format!("Bearer {message}.{}", BASE64.encode(self.pair.sign(message.as_bytes())))
    }
}

async fn serving(stores: &Stores, keys: &std::path::Path) -> (Instance, Api) {
    let mut args = stores.args();
    args.secrets.auth = Some("jwt".into());
    args.secrets.jwt_key = Some(keys.to_str().unwrap().into());
    args.secrets.jwt_audience = Some("usher".into());
    let instance = Instance::start_with(&args).await;
    let api = Api::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    (instance, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_is_its_users_and_keys_change_with_their_file() {
    let world = World::start(1).await;
    world.show(10, 1_000).await;
    let path = std::env::temp_dir().join(format!("usher-jwks-{}.json", new_key()));
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    std::fs::write(&path, json!({"keys": [old.jwk()]}).to_string()).unwrap();
    let (_instance, api) = serving(&world.stores, &path).await;
    let (user, other) = (new_user(), new_user());
    let wallet = |bearer: String| api.get("/v1/wallet").header("authorization", &bearer);

    let good = old.bearer(&user, 60, "usher");
    assert_eq!(wallet(good.clone()).send().await.expect(200)["user_id"], user.as_str());
    wallet(good.clone()).user(&user).send().await.expect(200);
    wallet(good.clone()).user(&other).send().await.problem(401, "unauthenticated");
    api.get("/v1/wallet").user(&user).send().await.problem(401, "unauthenticated");
    api.get("/v1/wallet").send().await.problem(401, "unauthenticated");
    for bad in [
        old.bearer(&user, -60, "usher"),
        old.bearer(&user, 60, "elsewhere"),
        old.bearer("somebody", 60, "usher"),
        new.bearer(&user, 60, "usher"),
        "Bearer x".to_owned(),
        good.replace("Bearer", "Basic"),
    ] {
        wallet(bad).send().await.problem(401, "unauthenticated");
    }

    // A token of the line is its holder's, whoever else the JWT names.
    let join = api.post(&format!("/v1/queues/{SHOW}/tokens")).header("authorization", &good);
    let token = join.send().await.expect(201)["token"].as_str().unwrap().to_owned();
    let poll = |bearer: String| {
        api.get(&format!("/v1/queues/{SHOW}/tokens/me")).token(&token).header("authorization", &bearer)
    };
    poll(good.clone()).send().await.expect(200);
    poll(old.bearer(&other, 60, "usher")).send().await.problem(403, "wrong_user");

    // Nobody credits themselves.
    let charge = api.post("/v1/wallet/charges").header("authorization", &good).key(&new_key());
    charge.json(&json!({"amount": 100})).send().await.problem(403, "forbidden");

    std::fs::write(&path, "half a fi").unwrap();
    std::fs::write(&path, json!({"keys": [new.jwk()]}).to_string()).unwrap();
    eventually("the new key is known", async || {
        (wallet(new.bearer(&user, 60, "usher")).send().await.status == 200).then_some(())
    })
    .await;
    wallet(good).send().await.problem(401, "unauthenticated");
    std::fs::remove_file(&path).unwrap();
    wallet(new.bearer(&user, 60, "usher")).send().await.expect(200);
}
