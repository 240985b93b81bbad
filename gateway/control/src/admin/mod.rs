//! The Admin service: the operations, as calls.

mod socket;

use std::sync::Arc;

use portcullis_proto::v1::admin_server::Admin;
use portcullis_proto::v1::{
    AddDeviceRequest, AddDeviceResponse, AddGatewayRequest, AddGatewayResponse, AddLocationRequest,
    AddSessionRequest, AddSessionResponse, AddUserRequest, AddUserResponse, ApplyPolicyRequest,
    ApplyPolicyResponse, AuditRecords, Device, DeviceInvite, Devices, Empty, EnrolmentLink,
    ExplainRequest, ExplainResponse, ExtendSessionRequest, Gateway, Gateways, GetPolicyRequest,
    InviteDeviceRequest, InviteUserRequest, ListAuditRequest, ListDevicesRequest, ListRequest,
    ListSessionsRequest, Location, Locations, NameRequest, PolicyCheck, PolicyDiff, PolicyReach,
    PolicySource, PolicyVersion, PolicyVersions, RecoveryCodes, RemoveGatewayRequest,
    ResetFactorsRequest, ResetFactorsResponse, ResetUserRequest, ResetUserResponse,
    RevocationStatus, RevokeSessionsRequest, SessionInfo, Sessions, SetLocationRequest,
    SetUserDisabledRequest, SetUserGroupsRequest, SetUserGroupsResponse, SetUserRequest,
    SetUserSsoRequest, ShadowPolicyRequest, StatusRequest, StatusResponse, TopRequest, TopResponse,
    TraceRequest, User, Users,
};
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::ops::policy::ShadowStream;
use crate::ops::trace::TraceStream;

pub(crate) use socket::{bind, serve};

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

    async fn new_recovery_codes(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<RecoveryCodes>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(self.0.new_recovery_codes(&name).await?))
    }

    async fn set_user(&self, request: Request<SetUserRequest>) -> Result<Response<User>, Status> {
        let request = request.into_inner();
        Ok(Response::new(
            self.0.set_role(&request.name, &request.role).await?,
        ))
    }

    async fn invite_user(
        &self,
        request: Request<InviteUserRequest>,
    ) -> Result<Response<EnrolmentLink>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.invite_user(request).await?))
    }

    async fn invite_device(
        &self,
        request: Request<InviteDeviceRequest>,
    ) -> Result<Response<DeviceInvite>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.invite_device(request).await?))
    }

    async fn reset_factors(
        &self,
        request: Request<ResetFactorsRequest>,
    ) -> Result<Response<ResetFactorsResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.reset_factors(request).await?))
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

    async fn set_location(
        &self,
        request: Request<SetLocationRequest>,
    ) -> Result<Response<Location>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.set_location(request).await?))
    }

    type TraceStream = TraceStream;

    async fn trace(
        &self,
        request: Request<TraceRequest>,
    ) -> Result<Response<Self::TraceStream>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.trace(request).await?))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.explain(request).await?))
    }

    async fn top(&self, _: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        Ok(Response::new(self.0.top().await?))
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
    ) -> Result<Response<AddSessionResponse>, Status> {
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

    async fn set_user_groups(
        &self,
        request: Request<SetUserGroupsRequest>,
    ) -> Result<Response<SetUserGroupsResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.set_user_groups(request).await?))
    }

    async fn set_user_sso(
        &self,
        request: Request<SetUserSsoRequest>,
    ) -> Result<Response<RevocationStatus>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.set_user_sso(request).await?))
    }

    async fn check_policy(
        &self,
        request: Request<PolicySource>,
    ) -> Result<Response<PolicyCheck>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.check_policy(request.text).await?))
    }

    async fn apply_policy(
        &self,
        request: Request<ApplyPolicyRequest>,
    ) -> Result<Response<ApplyPolicyResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.apply_policy(request).await?))
    }

    async fn get_policy(
        &self,
        request: Request<GetPolicyRequest>,
    ) -> Result<Response<PolicyVersion>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.get_policy(request.number).await?))
    }

    async fn list_policies(
        &self,
        _: Request<ListRequest>,
    ) -> Result<Response<PolicyVersions>, Status> {
        Ok(Response::new(self.0.list_policies().await?))
    }

    async fn show_policy(
        &self,
        request: Request<NameRequest>,
    ) -> Result<Response<PolicyReach>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.show_policy(&request.name).await?))
    }

    async fn diff_policy(
        &self,
        request: Request<PolicySource>,
    ) -> Result<Response<PolicyDiff>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.diff_policy(request.text).await?))
    }

    type ShadowPolicyStream = ShadowStream;

    async fn shadow_policy(
        &self,
        request: Request<ShadowPolicyRequest>,
    ) -> Result<Response<Self::ShadowPolicyStream>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.shadow_policy(request).await?))
    }

    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<AuditRecords>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.0.list_audit(request).await?))
    }
}
