//! The audit log of a real aggregator: only an admin reads it.

use uptime_aggregator::access::{hash_token, new_token};
use uptime_aggregator::store::{
    By, CredentialKind, IdentityStore, NewCredential, NewIdentity, Role, SqliteStore,
};
use uptime_client::{Error, Options, Token};

use crate::genuine::Genuine;
use crate::help::run;

async fn enrol(there: &Genuine, name: &str, role: Role) -> String {
    let token = new_token();
    let (hash, kind) = (hash_token(&token), CredentialKind::Token);
    let credential = Some(NewCredential { hash, kind, valid_until_ms: None });
    let (name, subnets_allowed) = (name.to_owned(), Vec::new());
    let identity = NewIdentity { name, role, subnets_allowed, credential };
    let by = By { actor: "a test".to_owned(), now_ms: 1_769_862_870_000 };
    let csv = there.csv();
    let mut store = SqliteStore::open(csv.parent().unwrap()).await.unwrap();
    assert!(store.enrol(&identity, &by).await.unwrap());
    token
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_for_admins() {
    let there = Genuine::start().await;
    let reader = enrol(&there, "eye", Role::Reader).await;
    let admin = enrol(&there, "boss", Role::Admin).await;
    let audit_log = async |token: Option<&String>, count| {
        let mut options = Options::new(there.url());
        if let Some(token) = token {
            options = options.token(Token::new(token).unwrap());
        }
        options.connect().await.unwrap().audit_log(count).await
    };
    for token in [None, Some(&reader)] {
        let denied = audit_log(token, 10).await.unwrap_err();
        assert!(matches!(denied, Error::Denied { call: "ListAudit", .. }), "{denied:?}");
    }
    let all = audit_log(Some(&admin), 10).await.unwrap();
    let subjects: Vec<&str> = all.iter().map(|event| event.subject.as_str()).collect();
    assert!(subjects.ends_with(&["boss", "eye", "beta", "alpha"]), "{subjects:?}");
    assert_eq!(audit_log(Some(&admin), 1).await.unwrap().len(), 1);

    let file = there.csv().with_file_name("boss.token");
    std::fs::write(&file, admin).unwrap();
    let (url, file) = (there.url(), file.display().to_string());
    let asked = ["audit", "--address", &url, "--token-file", &file, "--output", "csv"];
    let ran = run(&asked).await;
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert!(ran.out.starts_with("at_unix_ms,actor,action,subject,count,detail\n"), "{}", ran.out);
    let line = "\n1769862870000,a test,enrol,boss,1,\"as admin, by token\"\n";
    assert!(ran.out.contains(line), "{}", ran.out);
    let ran = run(&["audit", "--address", &url]).await;
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("--token-file"), "{}", ran.err);
}
