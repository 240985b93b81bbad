//! The CA's certificate and its sealed key.

use sqlx::AnyConnection;

use super::StoreError;

/// Certificate (base64 DER) and sealed key, when there is a CA.
pub(crate) async fn load(sql: &mut AnyConnection) -> Result<Option<(String, String)>, StoreError> {
    let (certificate, key): (Option<String>, Option<String>) =
        sqlx::query_as("SELECT ca_certificate, ca_key FROM meta")
            .fetch_one(sql)
            .await?;
    Ok(certificate.zip(key))
}

pub(crate) async fn save(
    sql: &mut AnyConnection,
    certificate: &str,
    sealed_key: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE meta SET ca_certificate = $1, ca_key = $2")
        .bind(certificate)
        .bind(sealed_key)
        .execute(sql)
        .await?;
    Ok(())
}
