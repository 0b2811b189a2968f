use super::*;

#[tokio::test]
async fn a_container_is_found_by_name_id_and_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let add = |vm: &str| {
        let id = id_of(vm);
        let container = Arc::new(Container::new(&id, vm, &dir.path().join(&id), 1 << 20).unwrap());
        locked(&containers.all).insert(id, container.clone());
        container
    };
    let (web, long) = (add("web"), add(&"ab".repeat(32)));
    assert_eq!((web.id.len(), long.id.as_str()), (64, "ab".repeat(32).as_str()));
    let found = |name: &str| containers.find(name).map(|container| container.id.clone());
    assert_eq!(found("web"), Ok(web.id.clone()));
    assert_eq!(found("/web"), Ok(web.id.clone()));
    assert_eq!(found("abab"), Ok(long.id.clone()));
    assert_eq!(found("nosuch").unwrap_err().to_string(), "No such container: nosuch");
    assert!(found("").is_err());
    assert_eq!(containers.rename(&web, "we!").unwrap_err(), NameError::Invalid("we!".into()));
    assert_eq!(
        containers.rename(&long, "web").unwrap_err(),
        NameError::Taken { name: "web".into(), id: web.id.clone() }
    );
    containers.rename(&web, "db").unwrap();
    assert_eq!((found("db"), found("web").is_err()), (Ok(web.id.clone()), true));
    // it is remembered
    containers.remove(&long).await.unwrap();
    let again = Containers::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(again.list().iter().map(|container| container.name()).collect::<Vec<_>>(), ["db"]);
}
