//! Users identified by JWTs of an external issuer, and backends with service keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::api_with;
use crate::support::{
    ApiClient, CONCERT, TestInstance, TestStores, TestWorld, eventually, new_key, new_user,
};

/// A JWT issuer with its own key.
struct JwtIssuer {
    kid: &'static str,
    pair: Ed25519KeyPair,
}

impl JwtIssuer {
    fn new(kid: &'static str) -> Self {
        let seed: [u8; 32] = rand::random();
        Self { kid, pair: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap() }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid,
            "x": BASE64.encode(self.pair.public_key())})
    }

    fn bearer(&self, user: &str, seconds: i64, audience: &str) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.kid});
        bearer(&header, &claims(user, seconds, audience), |message| {
            self.pair.sign(message).as_ref().to_vec()
        })
    }
}

fn now() -> i64 {
    jsonwebtoken::get_current_timestamp().cast_signed()
}

fn claims(user: &str, seconds: i64, audience: &str) -> Value {
    json!({"sub": user, "exp": now() + seconds, "aud": audience})
}

fn bearer(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    format!("Bearer {message}.{}", BASE64.encode(sign(message.as_bytes())))
}

fn by_hmac(secret: &[u8], header: &Value, claims: &Value) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    bearer(header, claims, |message| ring::hmac::sign(&key, message).as_ref().to_vec())
}

async fn serving(stores: &TestStores, keys: &std::path::Path) -> (TestInstance, ApiClient) {
    let mut args = stores.args();
    args.secrets.auth = Some("jwt".into());
    args.secrets.jwt_key = Some(keys.to_str().unwrap().into());
    args.secrets.jwt_audience = Some("usher".into());
    let instance = TestInstance::start_with(&args).await;
    let api = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    (instance, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jwt_identifies_its_user_and_keys_reload_from_their_file() {
    let world = TestWorld::start(1).await;
    world.put_show(10, 1_000).await;
    let path = std::env::temp_dir().join(format!("usher-jwks-{}.json", new_key()));
    let (old, new) = (JwtIssuer::new("old"), JwtIssuer::new("new"));
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
        old.bearer("", 60, "usher"),
        old.bearer("a b", 60, "usher"),
        old.bearer(&"x".repeat(129), 60, "usher"),
        new.bearer(&user, 60, "usher"),
        "Bearer x".to_owned(),
        good.replace("Bearer", "Basic"),
    ] {
        wallet(bad).send().await.problem(401, "unauthenticated");
    }

    // A queue token identifies its holder, whichever user the JWT names.
    let join = api.post(&format!("/v1/queues/{CONCERT}/tokens")).header("authorization", &good);
    let token = join.send().await.expect(201)["token"].as_str().unwrap().to_owned();
    let poll = |bearer: String| {
        api.get(&format!("/v1/queues/{CONCERT}/tokens/me"))
            .token(&token)
            .header("authorization", &bearer)
    };
    poll(good.clone()).send().await.expect(200);
    poll(old.bearer(&other, 60, "usher")).send().await.problem(403, "wrong_user");

    // Users cannot charge their own wallet.
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

/// A foreign RSA key and a token signed by it: `sub` is the lowest user id, `exp` is in 2100.
const MODULUS: &str = "\
    tRKRk86yqXoviymidSy16jWAM4vCsCOBgUSk1-yeAl8HjxUZwvhTIovh0c_iIH3FY3PU6yp4IGJS8FBn-3pJ0Hd7y6\
    LJWbMvbwkaSx4HIGjoUp9c_7MYRgLOiknHeGzd6-dvDyv8N83lS69AFXXXALDAcA0DTLoBRa0PhYK0YU0SDnfI_tVG\
    9SnzOxIJIbUPBGHptEK5E075LuIDihSlkIaY9SG3AAiQwgOiNhK9-0AkPg-ak1JOfMrKklDIqCr3emqh0tMbAbzKj0\
    rqCunoHaoIsPJBl02Y3YMjVpSwwu2p4wa0S-wZPCH9isBZIJTT79jfMPaFa4-gTVQbLNT2BQ";
const BY_RSA: &str = "\
    eyJhbGciOiJSUzI1NiIsImtpZCI6InIifQ.eyJzdWIiOiIwMDAwMDAwMC0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMDA\
    wMDEiLCJleHAiOjQxMDI0NDQ4MDB9.X1e12Jc2iNmcCw-S67RcuDV6tQXH9lYSyBK_KQCg0sBsOKXFxhfcXM7YmDGT\
    fNW0ethDPqBqkA76QJuht359DBmecxrjyWek-Ai1qEl_6QW9yNHHQM-rEi5Nn96a859Kg8MQeuhSB1c1AWCk5-lxnI\
    N9mEJnJc79ECwW86y2Tlabc8GAw90tOsOy5IE_BkdNq4J0O_mAg1SH3IfiM5SAXeiguApQzlWMC8iR-94tizMwIdof\
    jeFE_zW183MiK3qs5uZM1UfT8i15RQbzw5I2EV1It8ktEK7k94AvIlgy3KbIVtBXhVxUP4jghTXJdsuZm7DtZtyQoh\
    pqzewaKBYPqg";
const USER_OF_RSA: &str = "00000000-0000-4000-8000-000000000001";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_identity_source_and_key_type_works() {
    const SERVICE: &str = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";
    let stores = TestStores::new().await;
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
        .unwrap();
    let point = p256.public_key().as_ref();
    let edwards = JwtIssuer::new("e");
    let set = json!({"keys": [
        edwards.jwk(),
        {"kty": "EC", "crv": "P-256", "kid": "p", "x": BASE64.encode(&point[1..33]),
            "y": BASE64.encode(&point[33..])},
        {"kty": "RSA", "kid": "r", "alg": "RS256", "use": "sig", "n": MODULUS, "e": "AQAB"},
    ]});
    let path = std::env::temp_dir().join(format!("usher-jwks-{}.json", new_key()));
    std::fs::write(&path, set.to_string()).unwrap();
    let mut args = stores.args();
    args.secrets.auth = Some("header,service-key,jwt".into());
    args.secrets.service_keys = Some(SERVICE.into());
    args.secrets.jwt_key = Some(path.to_str().unwrap().into());
    let instance = TestInstance::start_with(&args).await;
    std::fs::remove_file(&path).unwrap();
    let api = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    let wallet = |bearer: &str| api.get("/v1/wallet").header("authorization", bearer);
    let (user, other) = (new_user(), new_user());

    let by_p256 = |kid: &str| {
        let header = json!({"alg": "ES256", "kid": kid});
        bearer(&header, &claims(&user, 600, "any"), |message| {
            p256.sign(&random, message).unwrap().as_ref().to_vec()
        })
    };
    let by_rsa = format!("Bearer {BY_RSA}");
    for (token, whose) in [
        (edwards.bearer(&user, 600, "any"), &user[..]),
        (by_p256("p"), &user[..]),
        (by_rsa, USER_OF_RSA),
    ] {
        assert_eq!(wallet(&token).send().await.expect(200)["user_id"], whose);
        // If a request has both, they must name the same user.
        wallet(&token).user(whose).send().await.expect(200);
        wallet(&token).user(&other).send().await.problem(401, "unauthenticated");
    }
    assert_eq!(
        api.get("/v1/wallet").user(&other).send().await.expect(200)["user_id"],
        other.as_str()
    );
    let service = format!("Bearer {SERVICE}");
    assert_eq!(wallet(&service).user(&other).send().await.expect(200)["user_id"], other.as_str());
    wallet(&service).send().await.problem(401, "unauthenticated");
    // The plain header does not replace an invalid claim, a key of another type, or an unknown
    // algorithm.
    let confused = by_hmac(
        edwards.pair.public_key().as_ref(),
        &json!({"alg": "HS256", "kid": "e"}),
        &claims(&user, 600, "any"),
    );
    let unsigned = bearer(&json!({"alg": "none"}), &claims(&user, 600, "any"), |_| Vec::new());
    for bad in [by_p256("e"), by_p256("unknown"), confused, unsigned, format!("{service}x")] {
        wallet(&bad).send().await.problem(401, "unauthenticated");
        wallet(&bad).user(&user).send().await.problem(401, "unauthenticated");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hmac_jwt_is_bound_to_audience_issuer_and_time() {
    const SECRET: &str = "7c9e66790d1d4b1f7c0a5be1d94b1f0a";
    const ISSUER: &str = "https://id.example";
    let stores = TestStores::new().await;
    let mut args = stores.args();
    args.secrets.auth = Some("jwt".into());
    args.secrets.jwt_key = Some(SECRET.into());
    args.secrets.jwt_audience = Some("usher".into());
    args.secrets.jwt_issuer = Some(ISSUER.into());
    let instance = TestInstance::start_with(&args).await;
    let api = ApiClient::new(vec![[instance.public.clone(), instance.admin.clone()]]);
    let user = new_user();
    let header = json!({"alg": "HS256"});
    let good = json!({"sub": user, "exp": now() + 600, "nbf": now(), "aud": ["other", "usher"],
        "iss": ISSUER});
    let status = async |token: String| {
        api.get("/v1/wallet").header("authorization", &token).send().await.status
    };
    assert_eq!(status(by_hmac(SECRET.as_bytes(), &header, &good)).await, 200);
    for (name, value) in [
        ("exp", json!(now() - 600)),
        ("exp", json!(null)),
        ("nbf", json!(now() + 6_000)),
        ("aud", json!("other")),
        ("aud", json!(null)),
        ("iss", json!("https://else.example")),
        ("iss", json!(null)),
        ("sub", json!("a b")),
        ("sub", json!(7)),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        assert_eq!(status(by_hmac(SECRET.as_bytes(), &header, &bad)).await, 401, "{bad}");
    }
    assert_eq!(status(by_hmac(b"another secret of the same kind!", &header, &good)).await, 401);
    for alg in ["none", "HS512", "RS256", "EdDSA"] {
        assert_eq!(
            status(by_hmac(SECRET.as_bytes(), &json!({"alg": alg}), &good)).await,
            401,
            "{alg}"
        );
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_service_keys_only_a_service_may_charge() {
    const KEY: &str = "5ervice-c2b7a9d84e5f6a1b3c8d7e9f0a";
    let stores = TestStores::new().await;
    let (_instance, api) = api_with(&stores, |args| {
        args.secrets.auth = Some("header,service-key".into());
        args.secrets.service_keys = Some(KEY.into());
    })
    .await;
    let user = new_user();
    let charge =
        || api.post("/v1/wallet/charges").user(&user).key(&new_key()).json(&json!({"amount": 100}));
    charge().send().await.problem(403, "forbidden");
    charge().header("authorization", "Bearer wrong").send().await.problem(401, "unauthenticated");
    charge().header("authorization", "Basic eDp4").send().await.problem(401, "unauthenticated");
    assert_eq!(api.balance(&user).await, 0);
    charge().header("authorization", &format!("Bearer {KEY}")).send().await.expect(201);
    assert_eq!(api.balance(&user).await, 100);

    let (_strict, api) = api_with(&stores, |args| {
        args.secrets.auth = Some("service-key".into());
        args.secrets.service_keys = Some(KEY.into());
    })
    .await;
    api.get("/v1/wallet").user(&user).send().await.problem(401, "unauthenticated");
    let by_service =
        api.get("/v1/wallet").user(&user).header("authorization", &format!("Bearer {KEY}"));
    assert_eq!(by_service.send().await.expect(200)["balance"], 100);
}
