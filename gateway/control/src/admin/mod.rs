//! The Admin service: the operations, as calls.

mod socket;

use std::sync::Arc;

use portcullis_proto::v1::admin_server::Admin;
use portcullis_proto::v1::{
    AddDeviceRequest, AddDeviceResponse, AddGatewayRequest, AddGatewayResponse, AddLocationRequest,
    AddSessionRequest, AddUserRequest, AddUserResponse, AuditRecords, Device, Devices, Empty,
    ExtendSessionRequest, Gateway, Gateways, ListAuditRequest, ListDevicesRequest, ListRequest,
    ListSessionsRequest, Location, Locations, NameRequest, RemoveGatewayRequest, ResetUserRequest,
    ResetUserResponse, RevocationStatus, RevokeSessionsRequest, SessionInfo, Sessions,
    SetUserDisabledRequest, StatusRequest, StatusResponse, User, Users,
};
use tonic::{Request, Response, Status};

use crate::core::Core;

pub(crate) use socket::serve;

/// Everything an administrator may ask for, over the socket or in the same process. Whoever holds
/// one is an administrator.
#[derive(Clone, Debug)]
pub struct AdminService(pub(crate) Arc<Core>);

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.0.status().await?))
    }

    async fn add_user(
        &self,
        request: Request<AddUserRequest>,
    ) -> Result<Response<AddUserResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.add_user(request).await?))
    }

    async fn list_users(&self, _: Request<ListRequest>) -> Result<Response<Users>, Status> {
        Ok(Response::new(self.0.list_users().await?))
    }

    async fn get_user(&self, request: Request<NameRequest>) -> Result<Response<User>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.get_user(&request.name).await?))
    }

    async fn remove_user(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<RevocationStatus>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.remove_user(&request.name).await?))
    }

    async fn set_user_disabled(
        &self,
        request: Request<SetUserDisabledRequest>,
    ) -> Result<Response<RevocationStatus>, Status> {
        let request = request.into_inner();
        Ok(Response::new(
            self.0
                .set_user_disabled(&request.name, request.disabled)
                .await?,
        ))
    }

    async fn reset_user(
        &self,
        request: Request<ResetUserRequest>,
    ) -> Result<Response<ResetUserResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.reset_user(request).await?))
    }

    async fn unlock_user(&self, request: Request<NameRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        self.0.unlock_user(&request.name).await?;
        Ok(Response::new(Empty {}))
    }

    async fn add_location(
        &self,
        request: Request<AddLocationRequest>,
    ) -> Result<Response<Location>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.add_location(request).await?))
    }

    async fn list_locations(&self, _: Request<ListRequest>) -> Result<Response<Locations>, Status> {
        Ok(Response::new(self.0.list_locations().await?))
    }

    async fn get_location(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<Location>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.get_location(&request.name).await?))
    }

    async fn remove_location(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        self.0.remove_location(&request.name).await?;
        Ok(Response::new(Empty {}))
    }

    async fn add_device(
        &self,
        request: Request<AddDeviceRequest>,
    ) -> Result<Response<AddDeviceResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.add_device(request).await?))
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<Devices>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.list_devices(request).await?))
    }

    async fn get_device(&self, request: Request<NameRequest>) -> Result<Response<Device>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.get_device(&request.name).await?))
    }

    async fn remove_device(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<RevocationStatus>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.remove_device(&request.name).await?))
    }

    async fn add_gateway(
        &self,
        request: Request<AddGatewayRequest>,
    ) -> Result<Response<AddGatewayResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.add_gateway(request).await?))
    }

    async fn list_gateways(&self, _: Request<ListRequest>) -> Result<Response<Gateways>, Status> {
        Ok(Response::new(self.0.list_gateways().await?))
    }

    async fn get_gateway(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<Gateway>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.get_gateway(&request.name).await?))
    }

    async fn remove_gateway(
        &self,
        request: Request<RemoveGatewayRequest>,
    ) -> Result<Response<RevocationStatus>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.remove_gateway(request).await?))
    }

    async fn gateway_token(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<AddGatewayResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(
            self.0.new_gateway_token(&request.name).await?,
        ))
    }

    async fn add_session(
        &self,
        request: Request<AddSessionRequest>,
    ) -> Result<Response<SessionInfo>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.add_session(request).await?))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<Sessions>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.list_sessions(request).await?))
    }

    async fn get_session(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<SessionInfo>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.get_session(&request.name).await?))
    }

    async fn extend_session(
        &self,
        request: Request<ExtendSessionRequest>,
    ) -> Result<Response<SessionInfo>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.extend_session(request).await?))
    }

    async fn revoke_sessions(
        &self,
        request: Request<RevokeSessionsRequest>,
    ) -> Result<Response<RevocationStatus>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.revoke(request).await?))
    }

    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<AuditRecords>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.list_audit(request).await?))
    }
}
