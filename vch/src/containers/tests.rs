//! Names, ids and beginnings; what is remembered.

use wire::vmx::Dictionary;

use super::*;

impl Containers {
    /// One that a guest has told so much of.
    pub(crate) fn add(&self, vm: &str, told: Option<&Told>) -> Arc<Container> {
        let id = id_of(vm);
        let container = Container::new(&id, vm, &self.dir.join(&id), self.journal_limit).unwrap();
        if let Some(Told { spec, about }) = told {
            let mut keys: Dictionary = wire::guestinfo::write(spec);
            wire::guestinfo::write_about(about, &mut keys);
            container.set_told(&keys.to_string());
        }
        let container = Arc::new(container);
        locked(&self.all).insert(id, container.clone());
        container
    }
}

#[tokio::test]
async fn a_container_is_found_by_name_id_and_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let (web, long) = (containers.add("web", None), containers.add(&"ab".repeat(32), None));
    assert_eq!((web.id.len(), long.id.as_str()), (64, "ab".repeat(32).as_str()));
    let found = |name: &str| containers.find(name).map(|container| container.id.clone());
    assert_eq!(found("web"), Ok(web.id.clone()));
    assert_eq!(found("/web"), Ok(web.id.clone()));
    assert_eq!(found("abab"), Ok(long.id.clone()));
    assert_eq!(found("nosuch").unwrap_err().to_string(), "No such container: nosuch");
    assert!(found("").is_err());
    assert_eq!(containers.rename(&web, "we!").await.unwrap_err(), NameError::Invalid("we!".into()));
    assert_eq!(
        containers.rename(&long, "web").await.unwrap_err(),
        NameError::Taken { name: "web".into(), id: web.id.clone() }
    );
    containers.rename(&web, "db").await.unwrap();
    assert_eq!((found("db"), found("web").is_err()), (Ok(web.id.clone()), true));
    // it is remembered
    containers.remove(&long).await.unwrap();
    let again = Containers::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(again.list().iter().map(|container| container.name()).collect::<Vec<_>>(), ["db"]);
}
