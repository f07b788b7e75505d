//! What `config.json` promises.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn home() -> (tempfile::TempDir, Paths) {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = Paths::under(dir.path()).expect("absolute");
    (dir, paths)
}

fn mesh(slug: &str, seed: u8) -> JoinedMesh {
    JoinedMesh {
        mesh_id: format!("id-{slug}"),
        member_id: "member".into(),
        slug: slug.into(),
        name: slug.to_uppercase(),
        secret_key: SecretKey::from_seed([seed; 32]),
        broker_url: "ws://127.0.0.1:7900/ws".into(),
        joined_at: "2024-11-22T01:10:00.000Z".into(),
        root_key: Some("root-secret".into()),
        invite_version: None,
        extra: Map::new(),
    }
}

fn add(paths: &Paths, mesh: JoinedMesh) -> Result<(), IdentityError> {
    update(paths, |config| config.put_mesh(mesh))
}

fn refused(text: &str) -> String {
    let (_dir, paths) = home();
    fs::write(paths.config_json(), text).expect("written");
    IdentityConfig::load(&paths)
        .expect_err(text)
        .to_string()
        .replace(&*paths.home.to_string_lossy(), "~")
}

#[test]
fn nothing_joined_is_an_empty_configuration() {
    let (_dir, paths) = home();
    assert!(IdentityConfig::load(&paths).expect("no file").meshes.is_empty());
    fs::write(paths.config_json(), r#"{"version":1,"meshes":{}}"#).expect("written");
    assert!(IdentityConfig::load(&paths).expect("no array").meshes.is_empty());
}

#[test]
fn what_we_do_not_know_survives_a_rewrite() {
    let (_dir, paths) = home();
    let text = include_str!("sample.json");
    fs::write(paths.config_json(), text).expect("written");
    add(&paths, mesh("second", 2)).expect("added");
    let mut want: Value = serde_json::from_str(text).expect("json");
    let now: Value =
        serde_json::from_slice(&fs::read(paths.config_json()).expect("read")).expect("json");
    let second = now["meshes"][1].clone();
    want["meshes"].as_array_mut().expect("a list").push(second.clone());
    assert_eq!(now, want);
    assert_eq!(second["secretKey"].as_str().map(str::len), Some(128));
    assert_eq!(second["pubkey"], mesh("second", 2).pubkey().to_hex());
}

#[test]
fn the_file_is_private_pretty_and_ends_in_a_newline() {
    let (_dir, paths) = home();
    add(&paths, mesh("demo", 1)).expect("added");
    let text = fs::read_to_string(paths.config_json()).expect("read");
    assert!(text.starts_with("{\n  \"version\": 1,\n") && text.ends_with("}\n"), "{text}");
    for file in [paths.config_json(), paths.config_lock()] {
        let mode = fs::metadata(file).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_mesh_is_replaced_by_itself_but_never_by_another_of_its_name() {
    let (_dir, paths) = home();
    add(&paths, mesh("demo", 1)).expect("added");
    add(&paths, mesh("demo", 2)).expect("replaced");
    let other = JoinedMesh { mesh_id: "other".into(), ..mesh("demo", 3) };
    let taken = add(&paths, other).expect_err("taken").to_string();
    assert!(taken.contains("`demo`") && taken.contains("id-demo"), "{taken}");
    let config = IdentityConfig::load(&paths).expect("good");
    assert_eq!(config.meshes.len(), 1);
    assert_eq!(config.mesh("demo").map(JoinedMesh::pubkey), Some(mesh("demo", 2).pubkey()));
}

#[test]
fn two_joins_at_once_do_not_lose_each_other() {
    let (_dir, paths) = home();
    std::thread::scope(|scope| {
        for nth in 0..8 {
            let paths = &paths;
            scope.spawn(move || add(paths, mesh(&format!("m{nth}"), nth)).expect("added"));
        }
    });
    assert_eq!(IdentityConfig::load(&paths).expect("good").meshes.len(), 8);
}

#[test]
fn a_wrong_file_is_refused_by_its_place_and_never_by_its_secret() {
    let sample: Value = serde_json::from_str(include_str!("sample.json")).expect("json");
    let with = |field: &str, value: Value| {
        let mut changed = sample.clone();
        changed["meshes"][0][field] = value;
        refused(&changed.to_string())
    };
    let secret = SecretKey::from_seed([9; 32]).to_hex();
    let cases = [
        refused("{"),
        refused("[]"),
        refused(r#"{"version":2}"#),
        refused(r#"{"displayName":7}"#),
        refused(r#"{"meshes":[{}]}"#),
        refused(r#"{"meshes":[7]}"#),
        with("secretKey", Value::from(secret.as_str())),
        with("secretKey", Value::from(&secret[..100])),
        with("secretKey", Value::from(7)),
        with("pubkey", Value::from("00".repeat(32))),
        with("brokerUrl", Value::from("http://broker")),
        with("meshId", Value::from("")),
        with("inviteVersion", Value::from("two")),
    ];
    let all = cases.join("\n");
    assert!(!all.contains(&secret[..100]), "{all}");
    let want = "\
~/config.json is not valid JSON (line 1, column 1): mend it or restore a copy
~/config.json must hold a JSON object: mend it or restore a copy
~/config.json: `version` must be 1: a newer claudemesh may have written it
~/config.json: `displayName` must be a string
~/config.json: mesh `meshes[0]`: `slug` is missing
~/config.json: mesh `meshes[0]`: `meshes` must hold objects only
~/config.json: mesh `demo`: `secretKey` does not belong to `pubkey`
~/config.json: mesh `demo`: `secretKey` must be 128 hex digits
~/config.json: mesh `demo`: `secretKey` must be a string
~/config.json: mesh `demo`: `pubkey` is a weak ed25519 public key, which anybody can forge for
~/config.json: mesh `demo`: `brokerUrl` must begin with ws:// or wss://
~/config.json: mesh `demo`: `meshId` must be visible text
~/config.json: mesh `demo`: `inviteVersion` must be 1 or 2";
    assert_eq!(all, want);
    let mut twice = sample.clone();
    twice["meshes"] = Value::from(vec![sample["meshes"][0].clone(), sample["meshes"][0].clone()]);
    assert!(refused(&twice.to_string()).contains("two meshes have the slug `demo`"));
}

#[test]
fn no_secret_is_printed() {
    let mesh = mesh("demo", 1);
    let shown = format!(
        "{mesh:?} {:?}",
        IdentityConfig { meshes: vec![mesh.clone()], ..IdentityConfig::default() }
    );
    assert!(!shown.contains(&mesh.secret_key.to_hex()[..64]) && !shown.contains("root-secret"));
}
