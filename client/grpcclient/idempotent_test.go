package grpcclient_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	_ "google.golang.org/protobuf/types/known/emptypb"

	"github.com/tandemgo/tandem/client/grpcclient"
)

// declare registers a service whose methods say what they are, as generated code does.
func declare(t *testing.T, service string, methods map[string]*descriptorpb.MethodOptions) {
	t.Helper()
	d := &descriptorpb.ServiceDescriptorProto{Name: proto.String(service)}
	for name, options := range methods {
		d.Method = append(d.Method, &descriptorpb.MethodDescriptorProto{
			Name: proto.String(name), Options: options,
			InputType: proto.String(".google.protobuf.Empty"), OutputType: proto.String(".google.protobuf.Empty"),
		})
	}
	if _, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("tandem.test." + service)); err == nil {
		return // the test runs more than once in this process
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("tandem/test/" + service + ".proto"), Package: proto.String("tandem.test"),
		Syntax: proto.String("proto3"), Dependency: []string{"google/protobuf/empty.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{d},
	}, protoregistry.GlobalFiles)
	require.NoError(t, err)
	require.NoError(t, protoregistry.GlobalFiles.RegisterFile(file))
}

func TestIdempotencyLevelOfTheDescriptor(t *testing.T) {
	level := func(l descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodOptions {
		return &descriptorpb.MethodOptions{IdempotencyLevel: &l}
	}
	declare(t, "Declared", map[string]*descriptorpb.MethodOptions{
		"Put":     level(descriptorpb.MethodOptions_IDEMPOTENT),
		"Get":     level(descriptorpb.MethodOptions_NO_SIDE_EFFECTS),
		"Unknown": level(descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN),
		"Silent":  nil,
	})
	for method, calls := range map[string]int{
		"/tandem.test.Declared/Put":     3,
		"/tandem.test.Declared/Get":     3,
		"/tandem.test.Declared/Unknown": 1,
		"/tandem.test.Declared/Silent":  1,
		"/tandem.test.Declared/None":    1,
		"/tandem.test.Undeclared/Put":   1,
		"/tandem.test/Declared":         1,
		"nonsense":                      1,
		"":                              1,
	} {
		synctest.Test(t, func(t *testing.T) {
			got := 0
			_ = interceptor(t, grpcclient.Config{})(t.Context(), method, nil, nil, nil,
				func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
					got++
					return status.Error(codes.Unavailable, "scripted")
				})
			assert.Equal(t, calls, got, method)
		})
	}
}
