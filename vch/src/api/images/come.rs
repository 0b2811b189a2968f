//! Images that come to this host in an archive: docker load, docker import.

use std::fs::File;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::go::named;
use super::lines::{self, Now, Teller};
use super::{event, no_store};
use crate::api::aside::spool;
use crate::api::error::ApiError;
use crate::api::query::Params;
use crate::api::{Api, carried};
use crate::ids;
use crate::image_store::{Brought, ChangeError, Deed, Step, apply_change};
use crate::maker::Maker;
use crate::timestamp::now_ns;

/// Spools the archive, and takes what is in it. Whatever is wrong with it is told in the answer's body, as docker does.
pub(super) async fn load(State(api): State<Arc<Api>>, params: Params, body: Body) -> Result<Response, ApiError> {
    let mut pieces = body.into_data_stream();
    let Some(maker) = api.maker.clone() else {
        carried::drain(&mut pieces).await;
        return Err(no_store());
    };
    let spooled = spool(file(&maker), &mut pieces).await;
    let quiet = params.flag("quiet");
    Ok(lines::always(move |teller| take(&maker, spooled?, quiet, teller)))
}

/// What makes a file without a name, beside what is kept.
fn file(maker: &Arc<Maker>) -> impl FnOnce() -> io::Result<File> + Send + use<> {
    let maker = maker.clone();
    move || maker.images.spool()
}

fn take(maker: &Maker, archive: File, quiet: bool, teller: &Teller) -> Result<(), ApiError> {
    let mut now = Now::default();
    let mut tell = |Step::Layer(taking): Step| {
        if !quiet && (now.and_then() || taking.read == taking.size) {
            let progress = json!({ "current": taking.read, "total": taking.size });
            let digits = taking.layer.hex();
            let id = ids::short(&digits);
            teller.tell(json!({ "status": "Loading layer", "progressDetail": progress, "id": id }));
        }
    };
    let brought = maker.images.load(archive, &mut tell).map_err(|error| ApiError::internal(error.to_string()))?;
    for Brought { id, names, renamed } in brought {
        let image = maker.images.find(&id).ok();
        event(maker, "load", &id, &id, image.as_deref());
        for (name, other) in renamed {
            let line =
                format!("The image {name} already exists, renaming the old one with ID {other} to empty string\n");
            teller.tell(json!({ "stream": line }));
        }
        for name in &names {
            teller.tell(json!({ "stream": format!("Loaded image: {name}\n") }));
        }
        if names.is_empty() {
            teller.tell(json!({ "stream": format!("Loaded image ID: {id}\n") }));
        }
    }
    Ok(())
}

/// A tar of a whole file system becomes an image.
pub(super) async fn import(maker: Arc<Maker>, params: Params, body: Body) -> Result<Response, ApiError> {
    let mut pieces = body.into_data_stream();
    let asked = asked(&params);
    let spooled = match &asked {
        Ok(_) => spool(file(&maker), &mut pieces).await,
        Err(_) => {
            carried::drain(&mut pieces).await;
            Err(ApiError::internal("not asked for"))
        }
    };
    let (name, config) = asked?;
    let comment = params.text("message").unwrap_or("Imported from -").to_owned();
    lines::answer(move |teller| {
        let deed = Deed { created_ns: now_ns(), comment, ..Deed::default() };
        let id = maker.images.commit(None, spooled?, config, &deed, name.as_deref());
        let id = id.map_err(|error| ApiError::internal(format!("{error:#}")))?;
        event(&maker, "import", &id, &id, maker.images.find(&id).ok().as_deref());
        teller.tell(json!({ "status": id }));
        Ok(())
    })
    .await
}

/// The name of the new image, and its configuration.
fn asked(params: &Params) -> Result<(Option<String>, Value), ApiError> {
    let name = params.text("repo").map(|repository| named(repository, params.text("tag"))).transpose()?;
    let mut config = json!({});
    for line in params.all("changes") {
        apply_change(&mut config, line)?;
    }
    Ok((name, config))
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> ApiError {
        ApiError::bad_parameter(error.to_string())
    }
}
