"""/workers: the processes that run the networks; for staff."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.mixins import ListModelMixin
from rest_framework.permissions import IsAdminUser

from recognition.api.base import ApiView, ReadSerializer
from recognition.models import Worker


class WorkerSerializer(ReadSerializer):
    networks = serializers.SerializerMethodField(help_text="What it has loaded.")
    is_alive = serializers.BooleanField(help_text="It announced itself lately.")
    pictures_per_second = serializers.FloatField(
        allow_null=True, help_text="Of work; null before the first."
    )

    class Meta:
        model = Worker
        fields = [
            "name",
            "device",
            "queues",
            "batch_size",
            "networks",
            "pictures",
            "pictures_per_second",
            "memory_bytes",
            "started_at",
            "seen_at",
            "is_alive",
        ]
        read_only_fields = fields

    @extend_schema_field(
        inline_serializer(
            "Network",
            {
                "name": serializers.CharField(),
                "role": serializers.CharField(),
                "digest": serializers.CharField(),
                "precision": serializers.CharField(help_text="float32 or int8."),
                "dimension": serializers.IntegerField(allow_null=True),
                "engine": serializers.CharField(),
                "device": serializers.CharField(),
                "threads": serializers.IntegerField(),
                "seconds": serializers.FloatField(help_text="Loading took."),
            },
            many=True,
        )
    )
    def get_networks(self, worker: Worker) -> list[dict[str, Any]]:
        return list(worker.networks)


class WorkerListView(ListModelMixin, ApiView):
    """The workers, those seen last first; what has been gone for a week is forgotten."""

    serializer_class = WorkerSerializer
    permission_classes = [IsAdminUser]
    queryset = Worker.objects.all()
    ordering_fields = ["seen_at", "name"]
    ordering = ["-seen_at"]
